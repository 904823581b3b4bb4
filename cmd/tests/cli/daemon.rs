//! A daemon with canned answers: the generated traits, a queue of plans and of executions, and a
//! list of what was asked.

mod cluster;
mod deploy;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use uc_api::v1::{self, exec_request, exec_response};
use uc_api::version::{CLIENT_VERSION_KEY, CLUSTER_KEY, PROTOCOL_KEY, check_cluster};
use uc_api::{Code, Failure};

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What it answers and what it was asked.
#[derive(Default)]
pub(crate) struct Daemon {
    pub(crate) info: Info,
    /// It is too old for `Identify`.
    pub(crate) refuse_identify: bool,
    /// The machine enters this cluster after it was asked which one it is in.
    pub(crate) after_identify: Mutex<Option<String>>,
    /// The machine enters this cluster, through another `uc`, after it was asked for its `Info`.
    pub(crate) after_info: Mutex<Option<String>>,
    /// A machine that is not to be believed: it answers `Join` with this record.
    pub(crate) join_answer: Option<v1::MachineRecord>,
    /// This call, by name, does its work. Then the daemon is off: nothing is answered any more.
    pub(crate) dies_in: Option<&'static str>,
    pub(crate) is_off: AtomicBool,
    /// The record of a machine arrives here from another member after it was not found.
    pub(crate) replicates_late: bool,
    /// How often it was asked which machine it is: once for each connection.
    pub(crate) identified: AtomicUsize,
    pub(crate) machines: Mutex<Vec<v1::MachineStatus>>,
    pub(crate) services: Vec<v1::ServiceStatus>,
    pub(crate) replicas: Vec<v1::ReplicaStatus>,
    pub(crate) inspection: v1::InspectServiceResponse,
    pub(crate) history: v1::HistoryResponse,
    pub(crate) logs: Vec<v1::LogEntry>,
    pub(crate) conflicts: Vec<v1::Conflict>,
    /// One for each call of `Examine`; the last one stays.
    pub(crate) examined: Mutex<VecDeque<Vec<v1::ExaminedMachine>>>,
    /// One for each call of `Plan`; the last one stays.
    pub(crate) plans: Mutex<VecDeque<v1::Plan>>,
    /// One for each call of `Execute`: events, and a failure in place of the end.
    pub(crate) executions: Mutex<VecDeque<(Vec<v1::DeployEvent>, Option<Failure>)>>,
    /// The answer to `ListDeployments`.
    pub(crate) deployments: Vec<v1::DeploymentStatus>,
    /// After its events, an execution does not end until it is cancelled.
    pub(crate) endless: bool,
    pub(crate) cancelled: Arc<Notify>,
    /// How an endless execution ends when it is cancelled.
    pub(crate) after_cancel: Vec<v1::DeployEvent>,
    /// `Execute` does not answer: the daemon looks at all machines before it does.
    pub(crate) execute_hangs: bool,
    pub(crate) missing: Vec<v1::ImageTarget>,
    pub(crate) push_errors: Vec<v1::PushResult>,
    /// The projects that are being deployed.
    pub(crate) locks: v1::ListLocksResponse,
    /// The join tokens.
    pub(crate) tokens: Mutex<Vec<v1::TokenStatus>>,
    /// Every call is refused with this.
    pub(crate) refuse: Option<Failure>,
    /// These calls are refused with this, by name.
    pub(crate) refuse_call: Option<(&'static str, Failure)>,
    /// This call, by name, does its work and then never answers.
    pub(crate) stalled_call: Option<&'static str>,
    /// What was asked, in order.
    pub(crate) calls: Mutex<Vec<String>>,
    /// Version and protocol of the callers.
    pub(crate) versions: Mutex<Vec<(String, String)>>,
    /// Archives that were pushed to their end.
    pub(crate) pushed: Mutex<Vec<Archive>>,
    /// Contents that are here already, by hash.
    pub(crate) contents: Mutex<BTreeMap<String, Content>>,
    /// Deployments that were asked for.
    pub(crate) wishes: Mutex<Vec<v1::PlanRequest>>,
}

/// The cluster that a daemon is in, unless the test gives it another [`Info`].
pub(crate) const CLUSTER: &str = "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1";

/// What the daemon knows about its machine. Changes when the machine enters or leaves a cluster.
pub(crate) struct Info(Mutex<v1::InfoResponse>);

impl Default for Info {
    /// The machine m1 of [`CLUSTER`].
    fn default() -> Self {
        v1::InfoResponse {
            cluster_id: CLUSTER.into(),
            machine_id: "id-1".into(),
            machine_name: "m1".into(),
            ..Default::default()
        }
        .into()
    }
}

impl From<v1::InfoResponse> for Info {
    fn from(info: v1::InfoResponse) -> Self {
        Self(info.into())
    }
}

impl Info {
    /// A machine that is not in a cluster.
    pub(crate) fn outside() -> Self {
        v1::InfoResponse::default().into()
    }

    pub(crate) fn get(&self) -> v1::InfoResponse {
        self.0.lock().unwrap().clone()
    }

    /// The machine enters a cluster, or leaves its own (`machine` is `None`).
    fn enter(&self, cluster: &str, machine: Option<&v1::MachineRecord>) {
        let mut info = self.0.lock().unwrap();
        info.cluster_id = cluster.into();
        info.machine_id = machine.map_or_else(String::new, |machine| machine.id.clone());
        info.machine_name = machine.map_or_else(String::new, |machine| machine.name.clone());
    }
}

/// A content that was pushed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) secret: bool,
    pub(crate) archive: Vec<u8>,
}

/// An archive that was pushed.
#[derive(Default)]
pub(crate) struct Archive {
    pub(crate) image: String,
    pub(crate) machines: Vec<String>,
    pub(crate) bytes: usize,
    pub(crate) largest_chunk: usize,
}

/// Answers on a socket until the runtime ends.
pub(crate) fn serve(socket: &Path, daemon: Arc<Daemon>) {
    let listener = UnixListener::bind(socket).unwrap();
    let server = Server::builder()
        .add_service(v1::machine_server::MachineServer::from_arc(Arc::clone(
            &daemon,
        )))
        .add_service(v1::cluster_server::ClusterServer::from_arc(Arc::clone(
            &daemon,
        )))
        .add_service(v1::services_server::ServicesServer::from_arc(Arc::clone(
            &daemon,
        )))
        .add_service(v1::conflicts_server::ConflictsServer::from_arc(Arc::clone(
            &daemon,
        )))
        .add_service(v1::deploy_server::DeployServer::from_arc(daemon))
        .serve_with_incoming(UnixListenerStream::new(listener));
    tokio::spawn(server);
}

impl Daemon {
    fn called<T>(
        &self,
        request: &Request<T>,
        call: &'static str,
        what: impl Into<String>,
    ) -> Result<(), Status> {
        let what = what.into();
        self.calls
            .lock()
            .unwrap()
            .push(format!("{call} {what}").trim().to_owned());
        let value = |key| {
            request
                .metadata()
                .get(key)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        self.versions
            .lock()
            .unwrap()
            .push((value(CLIENT_VERSION_KEY), value(PROTOCOL_KEY)));
        if let Some(meant) = request.metadata().get(CLUSTER_KEY) {
            let own = self.info.get().cluster_id;
            let own = Some(own.as_str()).filter(|own| !own.is_empty());
            check_cluster(Some(meant.to_str().unwrap()), own)?;
        }
        self.check_on()?;
        match (&self.refuse, &self.refuse_call) {
            (Some(failure), _) => Err(failure.clone().into()),
            (None, Some((name, failure))) if *name == call => Err(failure.clone().into()),
            _ => Ok(()),
        }
    }

    /// What was asked so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

fn boxed<T: Send + 'static>(items: Vec<Result<T, Status>>) -> Boxed<T> {
    Box::pin(tokio_stream::iter(items))
}

#[tonic::async_trait]
impl v1::machine_server::Machine for Daemon {
    /// Not one of `calls`: each connection begins with it.
    async fn identify(
        &self,
        _: Request<v1::IdentifyRequest>,
    ) -> Result<Response<v1::IdentifyResponse>, Status> {
        self.check_on()?;
        self.identified.fetch_add(1, Ordering::SeqCst);
        if self.refuse_identify {
            return Err(Status::unimplemented(""));
        }
        // The version is checked on every call.
        if let Some(failure) = self.refuse.as_ref().filter(|it| it.code == Code::Version) {
            return Err(failure.clone().into());
        }
        let info = self.info.get();
        if let Some(cluster) = self.after_identify.lock().unwrap().take() {
            self.info.enter(&cluster, Some(&member("id-1", "m1", "")));
        }
        Ok(Response::new(v1::IdentifyResponse {
            cluster_id: info.cluster_id,
            machine_id: info.machine_id,
            machine_name: info.machine_name,
        }))
    }

    async fn info(
        &self,
        request: Request<v1::InfoRequest>,
    ) -> Result<Response<v1::InfoResponse>, Status> {
        self.called(&request, "Info", "")?;
        let info = self.info.get();
        if let Some(cluster) = self.after_info.lock().unwrap().take() {
            self.info.enter(&cluster, Some(&member("id-9", "m9", "")));
        }
        Ok(Response::new(info))
    }

    async fn init(
        &self,
        request: Request<v1::InitRequest>,
    ) -> Result<Response<v1::InitResponse>, Status> {
        let r = request.get_ref();
        let what = format!(
            "{} {} {:?} {}",
            r.name, r.network, r.endpoints, r.wireguard_port
        );
        self.called(&request, "Init", what)?;
        let name = if r.name.is_empty() { "host-1" } else { &r.name };
        let machine = member("m-1", name, "10.210.0.0/24");
        self.enter(&machine)?;
        Ok(Response::new(v1::InitResponse {
            cluster_id: CLUSTER.into(),
            machine: Some(machine),
        }))
    }

    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        let r = request.get_ref();
        let members: Vec<_> = r
            .members
            .iter()
            .map(|member| member.name.as_str())
            .collect();
        self.called(&request, "Join", format!("with {members:?}"))?;
        let (Some(cluster), Some(machine)) = (r.cluster.clone(), r.machine.clone()) else {
            return Err(invalid("the join request names no cluster or no machine"));
        };
        if machine.public_key != self.info.get().public_key {
            return Err(invalid("the join request is meant for another machine"));
        }
        self.enter(&machine)?;
        self.end("Join").await?;
        Ok(Response::new(v1::JoinResponse {
            cluster_id: cluster.id,
            machine: Some(self.join_answer.clone().unwrap_or(machine)),
        }))
    }

    async fn join_with_token(
        &self,
        request: Request<v1::JoinWithTokenRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        let r = request.get_ref();
        self.called(
            &request,
            "JoinWithToken",
            format!("{} {:?}", r.name, r.endpoints),
        )?;
        let machine = member("m-2", "new", "10.210.1.0/24");
        self.enter(&machine)?;
        Ok(Response::new(v1::JoinResponse {
            cluster_id: CLUSTER.into(),
            machine: Some(machine),
        }))
    }

    async fn reset(
        &self,
        request: Request<v1::ResetRequest>,
    ) -> Result<Response<v1::ResetResponse>, Status> {
        let id = &request.get_ref().machine_id;
        self.called(&request, "Reset", id)?;
        if id.is_empty() || *id == self.info.get().machine_id {
            self.info.enter("", None);
        }
        Ok(Response::new(v1::ResetResponse::default()))
    }
}

fn invalid(message: &str) -> Status {
    Failure::new(Code::Invalid, message).into()
}

fn exists(message: impl Into<String>) -> Status {
    Failure::new(Code::Exists, message).into()
}

impl Daemon {
    /// Makes the machine a member, as `init` and the joins do: a second time is refused.
    fn enter(&self, machine: &v1::MachineRecord) -> Result<(), Status> {
        let cluster = self.info.get().cluster_id;
        if !cluster.is_empty() {
            return Err(exists(format!(
                "this machine already belongs to cluster {cluster}"
            )));
        }
        self.info.enter(CLUSTER, Some(machine));
        Ok(())
    }

    /// The end of a call's work: waits forever if this is the stalled call, and fails if the daemon
    /// dies in it.
    async fn end(&self, call: &str) -> Result<(), Status> {
        if self.stalled_call == Some(call) {
            std::future::pending::<()>().await;
        }
        if self.dies_in == Some(call) {
            self.is_off.store(true, Ordering::SeqCst);
        }
        self.check_on()
    }

    /// What the transport reports when the daemon is off.
    fn check_on(&self) -> Result<(), Status> {
        if self.is_off.load(Ordering::SeqCst) {
            return Err(Status::unavailable("the connection is broken"));
        }
        Ok(())
    }

    /// Position of a member by id or name.
    fn position(machines: &[v1::MachineStatus], wanted: &str) -> Result<usize, Status> {
        machines
            .iter()
            .filter_map(|status| status.machine.as_ref())
            .position(|machine| machine.id == wanted || machine.name == wanted)
            .ok_or_else(|| {
                let message = format!("machine `{wanted}` not found");
                Failure::new(Code::NotFound, message).into()
            })
    }
}

#[tonic::async_trait]
impl v1::services_server::Services for Daemon {
    type LogsStream = Boxed<v1::LogEntry>;
    type ExecStream = Boxed<v1::ExecResponse>;

    async fn list(
        &self,
        request: Request<v1::ListServicesRequest>,
    ) -> Result<Response<v1::ListServicesResponse>, Status> {
        self.called(&request, "List", &request.get_ref().project)?;
        Ok(Response::new(v1::ListServicesResponse {
            services: self.services.clone(),
        }))
    }

    async fn ps(
        &self,
        request: Request<v1::PsRequest>,
    ) -> Result<Response<v1::PsResponse>, Status> {
        self.called(&request, "Ps", request.get_ref().services.join(","))?;
        Ok(Response::new(v1::PsResponse {
            replicas: self.replicas.clone(),
        }))
    }

    async fn history(
        &self,
        request: Request<v1::HistoryRequest>,
    ) -> Result<Response<v1::HistoryResponse>, Status> {
        self.called(&request, "History", &request.get_ref().service)?;
        Ok(Response::new(self.history.clone()))
    }

    async fn inspect(
        &self,
        request: Request<v1::InspectServiceRequest>,
    ) -> Result<Response<v1::InspectServiceResponse>, Status> {
        self.called(&request, "Inspect", &request.get_ref().service)?;
        Ok(Response::new(self.inspection.clone()))
    }

    async fn logs(
        &self,
        request: Request<v1::LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let r = request.get_ref();
        let what = format!(
            "{:?} follow={} tail={} since={}",
            r.services,
            r.follow,
            r.tail,
            r.since_ms > 0
        );
        self.called(&request, "Logs", what)?;
        Ok(Response::new(boxed(
            self.logs.iter().cloned().map(Ok).collect(),
        )))
    }

    /// A shell in miniature: `cat` gives stdin back on stdout, `fail N` writes to stderr and exits
    /// with N, all else exits with 0.
    async fn exec(
        &self,
        request: Request<Streaming<v1::ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        self.called(&request, "Exec", "")?;
        let mut input = request.into_inner();
        let first = input.message().await?.and_then(|message| message.message);
        let Some(exec_request::Message::Start(start)) = first else {
            return Err(Status::invalid_argument("no start"));
        };
        let what = format!(
            "{} {:?} tty={} env={:?}",
            start.service, start.command, start.tty, start.environment
        );
        self.calls.lock().unwrap().push(what);
        if start.service == "nope" {
            return Err(Failure::new(Code::NotFound, "service `nope` not found")
                .hint("did you mean `node`?")
                .into());
        }
        let (sender, receiver) = tokio::sync::mpsc::channel(8);
        tokio::spawn(async move {
            let word = start.command.first().map_or("", String::as_str);
            let mut answers = Vec::new();
            let mut code = 0;
            match word {
                "cat" => {
                    let mut bytes = Vec::new();
                    while let Some(Ok(message)) = input.next().await {
                        match message.message {
                            Some(exec_request::Message::Stdin(more)) => bytes.extend(more),
                            Some(exec_request::Message::StdinClosed(_)) => break,
                            _ => {}
                        }
                    }
                    answers.push(exec_response::Message::Stdout(bytes));
                }
                "fail" => {
                    answers.push(exec_response::Message::Stderr(b"it failed\n".to_vec()));
                    code = start.command[1].parse().unwrap();
                }
                _ => answers.push(exec_response::Message::Stdout(
                    b"hello \x1b[31mred\x1b[0m\n".to_vec(),
                )),
            }
            answers.push(exec_response::Message::ExitCode(code));
            for message in answers {
                _ = sender
                    .send(Ok(v1::ExecResponse {
                        message: Some(message),
                    }))
                    .await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

#[tonic::async_trait]
impl v1::conflicts_server::Conflicts for Daemon {
    async fn list(
        &self,
        request: Request<v1::ListConflictsRequest>,
    ) -> Result<Response<v1::ListConflictsResponse>, Status> {
        self.called(&request, "ListConflicts", "")?;
        Ok(Response::new(v1::ListConflictsResponse {
            conflicts: self.conflicts.clone(),
        }))
    }

    async fn settle(
        &self,
        request: Request<v1::SettleConflictRequest>,
    ) -> Result<Response<v1::SettleConflictResponse>, Status> {
        let r = request.get_ref();
        let what = format!(
            "{}/{} keep {} of {}",
            r.kind,
            r.key,
            r.keep,
            r.seen.join(" ")
        );
        self.called(&request, "SettleConflict", what)?;
        Ok(Response::new(v1::SettleConflictResponse::default()))
    }
}

/// A member's record.
pub(crate) fn member(id: &str, name: &str, subnet: &str) -> v1::MachineRecord {
    v1::MachineRecord {
        id: id.into(),
        name: name.into(),
        public_key: "a2V5".into(),
        subnet: subnet.into(),
        endpoints: vec!["203.0.113.1:51820".into()],
        created_at_ms: 1_700_000_000_000,
        ..Default::default()
    }
}

/// A member in the list.
pub(crate) fn status(
    machine: &v1::MachineRecord,
    liveness: v1::Liveness,
    connected: bool,
) -> v1::MachineStatus {
    let facts = v1::MachineFacts {
        hostname: machine.name.clone(),
        os: "Debian 12".into(),
        kernel: "6.1".into(),
        arch: "x86_64".into(),
        docker_version: "28.5.1".into(),
        uc_version: "0.1.0".into(),
        ..Default::default()
    };
    v1::MachineStatus {
        machine: Some(machine.clone()),
        liveness: liveness.into(),
        facts: Some(facts),
        connected,
        replicas: 2,
        evicted: false,
    }
}
