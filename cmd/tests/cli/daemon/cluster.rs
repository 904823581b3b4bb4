//! What the test daemon answers about machines.

use tonic::{Request, Response, Status};
use uc_api::{Code, Failure, v1};

use super::{CLUSTER, Daemon, exists, invalid, member, status};

#[tonic::async_trait]
impl v1::cluster_server::Cluster for Daemon {
    /// A member that was just added is seen as up by the next call: its liveness is unknown before
    /// the first exchange.
    async fn list_machines(
        &self,
        request: Request<v1::ListMachinesRequest>,
    ) -> Result<Response<v1::ListMachinesResponse>, Status> {
        self.called(&request, "ListMachines", "")?;
        let mut known = self.machines.lock().unwrap();
        let machines = known.clone();
        for status in known
            .iter_mut()
            .filter(|status| status.liveness() == v1::Liveness::Unspecified)
        {
            status.set_liveness(v1::Liveness::Up);
        }
        Ok(Response::new(v1::ListMachinesResponse { machines }))
    }

    async fn add_machine(
        &self,
        request: Request<v1::AddMachineRequest>,
    ) -> Result<Response<v1::AddMachineResponse>, Status> {
        let r = request.get_ref();
        self.called(
            &request,
            "AddMachine",
            format!("{} {} {:?}", r.machine_id, r.name, r.endpoints),
        )?;
        let id = match r.machine_id.as_str() {
            "" => "f".repeat(32),
            id => id
                .parse::<uc_api::MachineId>()
                .map_err(|error| invalid(&error.to_string()))?
                .to_string(),
        };
        let machine = v1::MachineRecord {
            public_key: r.public_key.clone(),
            endpoints: r.endpoints.clone(),
            ..member(&id, &r.name, "10.210.7.0/24")
        };
        let members = {
            let mut machines = self.machines.lock().unwrap();
            let records = || machines.iter().filter_map(|status| status.machine.as_ref());
            if let Some(taken) = records().find(|known| known.name == r.name) {
                return Err(exists(format!(
                    "a machine named {} is already in the cluster",
                    taken.name
                )));
            }
            if let Some(taken) =
                records().find(|known| known.id == id || known.public_key == r.public_key)
            {
                return Err(exists(format!(
                    "the machine is already in the cluster, as {}",
                    taken.name
                )));
            }
            machines.push(v1::MachineStatus {
                facts: None,
                replicas: 0,
                ..status(&machine, v1::Liveness::Unspecified, false)
            });
            let members = machines.iter();
            members
                .filter_map(|status| status.machine.clone())
                .collect()
        };
        self.end("AddMachine").await?;
        Ok(Response::new(v1::AddMachineResponse {
            cluster: Some(v1::ClusterRecord {
                id: CLUSTER.into(),
                network: "10.210.0.0/16".into(),
                created_at_ms: 1_700_000_000_000,
            }),
            machine: Some(machine),
            members,
        }))
    }

    async fn rename_machine(
        &self,
        request: Request<v1::RenameMachineRequest>,
    ) -> Result<Response<v1::RenameMachineResponse>, Status> {
        let r = request.get_ref();
        self.called(
            &request,
            "RenameMachine",
            format!("{} {}", r.machine, r.new_name),
        )?;
        let mut machines = self.machines.lock().unwrap();
        let index = Self::position(&machines, &r.machine)?;
        let machine = machines[index].machine.as_mut();
        let machine = machine.map(|machine| {
            machine.name.clone_from(&r.new_name);
            machine.clone()
        });
        Ok(Response::new(v1::RenameMachineResponse { machine }))
    }

    async fn label_machine(
        &self,
        request: Request<v1::LabelMachineRequest>,
    ) -> Result<Response<v1::LabelMachineResponse>, Status> {
        let r = request.get_ref();
        self.called(
            &request,
            "LabelMachine",
            format!("{} {:?} {:?}", r.machine, r.set, r.remove),
        )?;
        let mut machines = self.machines.lock().unwrap();
        let mut members = machines
            .iter_mut()
            .filter_map(|status| status.machine.as_mut());
        let machine = members.find(|machine| machine.id == r.machine).unwrap();
        machine.labels.retain(|key, _| !r.remove.contains(key));
        machine.labels.extend(r.set.clone());
        Ok(Response::new(v1::LabelMachineResponse {
            machine: Some(machine.clone()),
        }))
    }

    async fn cordon_machine(
        &self,
        request: Request<v1::CordonMachineRequest>,
    ) -> Result<Response<v1::CordonMachineResponse>, Status> {
        let v1::CordonMachineRequest { machine, cordon } = request.get_ref();
        self.called(&request, "CordonMachine", format!("{machine} {cordon}"))?;
        let mut machines = self.machines.lock().unwrap();
        let mut members = machines
            .iter_mut()
            .filter_map(|status| status.machine.as_mut());
        let member = members.find(|member| member.id == *machine).unwrap();
        member.cordoned_at_ms = if *cordon { 1_700_000_000_000 } else { 0 };
        Ok(Response::new(v1::CordonMachineResponse {
            machine: Some(member.clone()),
        }))
    }

    async fn remove_machine(
        &self,
        request: Request<v1::RemoveMachineRequest>,
    ) -> Result<Response<v1::RemoveMachineResponse>, Status> {
        let r = request.get_ref();
        self.called(
            &request,
            "RemoveMachine",
            format!("{} no_reset={}", r.machine, r.no_reset),
        )?;
        let mut machines = self.machines.lock().unwrap();
        let index = Self::position(&machines, &r.machine);
        if index.is_err() && self.replicates_late {
            let late = member(&r.machine, "late", "10.210.7.0/24");
            machines.push(status(&late, v1::Liveness::Unspecified, false));
        }
        let index = index?;
        if machines[index].connected {
            return Err(
                Failure::new(Code::Refused, "that is the machine you are connected to").into(),
            );
        }
        let answer = v1::RemoveMachineResponse {
            machine: machines.remove(index).machine,
            was_reset: !r.no_reset,
            ..Default::default()
        };
        Ok(Response::new(answer))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        self.called(&request, "CreateToken", request.get_ref().ttl_s.to_string())?;
        let token = "uc1:abc".into();
        Ok(Response::new(v1::CreateTokenResponse {
            token,
            expires_at_ms: 1_900_000_000_000,
        }))
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        self.called(&request, "ListTokens", "")?;
        let tokens = self.tokens.lock().unwrap().clone();
        Ok(Response::new(v1::ListTokensResponse { tokens }))
    }

    async fn remove_token(
        &self,
        request: Request<v1::RemoveTokenRequest>,
    ) -> Result<Response<v1::RemoveTokenResponse>, Status> {
        let id = &request.get_ref().id;
        self.called(&request, "RemoveToken", id.clone())?;
        let mut tokens = self.tokens.lock().unwrap();
        let position = tokens
            .iter()
            .position(|status| status.token.as_ref().is_some_and(|token| token.id == *id))
            .ok_or_else(|| {
                Failure::new(Code::NotFound, format!("join token `{id}` not found"))
                    .hint("`uc machine token ls` lists the tokens")
            })?;
        let token = Some(tokens.remove(position));
        Ok(Response::new(v1::RemoveTokenResponse { token }))
    }

    async fn backup(
        &self,
        request: Request<v1::BackupRequest>,
    ) -> Result<Response<v1::BackupResponse>, Status> {
        let r = request.get_ref();
        let name = if r.machine.is_empty() {
            "m1".to_owned()
        } else {
            r.machine.replace("id-", "m")
        };
        self.called(&request, "Backup", format!("{} {}", r.machine, r.path))?;
        let machine = Some(member(&name.replace('m', "id-"), &name, "10.210.0.0/24"));
        let path = format!("/var/lib/uc/backups/{}", r.path);
        Ok(Response::new(v1::BackupResponse {
            machine,
            bytes: 81_920,
            digest: "ab12".repeat(16),
            path,
        }))
    }

    async fn examine(
        &self,
        request: Request<v1::ExamineRequest>,
    ) -> Result<Response<v1::ExamineResponse>, Status> {
        let r = request.get_ref();
        self.called(
            &request,
            "Examine",
            format!("{:?} all={}", r.machines, r.all),
        )?;
        let mut looks = self.examined.lock().unwrap();
        let machines = if looks.len() > 1 {
            looks.pop_front()
        } else {
            looks.front().cloned()
        };
        Ok(Response::new(v1::ExamineResponse {
            machines: machines.unwrap_or_default(),
        }))
    }
}
