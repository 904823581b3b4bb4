use uc_api::v1::{FieldChange, PreDeployStep, VolumeSpec, VolumeStep};

use super::*;

fn step(id: &str, action: ReplicaAction, machine: &str, reason: &str) -> ReplicaStep {
    ReplicaStep {
        id: id.into(),
        action: action.into(),
        machine_id: format!("id-{machine}"),
        machine_name: machine.into(),
        container_id: if action == ReplicaAction::Create {
            String::new()
        } else {
            "4f5a6b7c8d9e0f11".into()
        },
        order: UpdateOrder::StartFirst.into(),
        reason: reason.into(),
        ..Default::default()
    }
}

fn field(field: &str, old: &str, new: &str) -> FieldChange {
    FieldChange {
        field: field.into(),
        old: old.into(),
        new: new.into(),
    }
}

fn retirement() -> Retirement {
    Retirement {
        machine_name: "m4".into(),
        container_name: "shop-web-abcd".into(),
        reason: "surplus".into(),
        ..Default::default()
    }
}

fn plan() -> Plan {
    let volume = VolumeSpec {
        name: "shop_data".into(),
        ..Default::default()
    };
    let mut moved = step("s4", ReplicaAction::Replace, "m1", "m3 left the placement");
    moved.old_machine_id = "id-m3".into();
    moved.order = UpdateOrder::StopFirst.into();
    Plan {
        digest: "d".into(),
        volumes: vec![VolumeStep {
            id: "v1".into(),
            machine_name: "m1".into(),
            volume: Some(volume),
            ..Default::default()
        }],
        services: vec![
            ServicePlan {
                project: "shop".into(),
                service: "db".into(),
                change: ServiceChange::Create.into(),
                steps: vec![step("s1", ReplicaAction::Create, "m1", "new replica")],
                desired: 1,
                ..Default::default()
            },
            ServicePlan {
                project: "shop".into(),
                service: "web".into(),
                change: ServiceChange::Update.into(),
                fields: vec![
                    field("image", "shop-web:aaa", "shop-web:bbb"),
                    field(
                        "environment.MOTD",
                        "",
                        &format!("two\nlines {}", "x".repeat(80)),
                    ),
                    field("user", "root", ""),
                ],
                steps: vec![
                    step("s2", ReplicaAction::Replace, "machine-2", "image changed"),
                    moved,
                    step("s3", ReplicaAction::Remove, "m3", "surplus"),
                ],
                kept: 1,
                desired: 3,
                ..Default::default()
            },
            ServicePlan {
                project: "shop".into(),
                service: "agent".into(),
                change: ServiceChange::None.into(),
                kept: 2,
                desired: 2,
                mode: ServiceMode::Global.into(),
                ..Default::default()
            },
            ServicePlan {
                project: "shop".into(),
                service: "old".into(),
                change: ServiceChange::Remove.into(),
                steps: vec![step("s5", ReplicaAction::Remove, "m2", "")],
                ..Default::default()
            },
        ],
        retirements: vec![retirement()],
        warnings: vec!["machine m4 is down: nothing is placed there".into()],
        ..Default::default()
    }
}

#[test]
fn plan_is_drawn_from_volumes_to_summary() {
    insta::assert_snapshot!(anstream::adapter::strip_str(&draw(&plan())).to_string());
}

#[test]
fn plan_without_changes_is_empty() {
    let mut plan = plan();
    assert!(!is_empty(&plan));
    plan.volumes.clear();
    plan.retirements.clear();
    plan.services
        .retain(|service| service.change() == ServiceChange::None);
    assert!(is_empty(&plan));
    plan.services[0]
        .steps
        .push(step("s", ReplicaAction::Create, "m1", "missing"));
    assert!(!is_empty(&plan), "a missing replica must be created");
    plan.services[0].steps.clear();
    plan.retirements.push(retirement());
    assert!(
        !is_empty(&plan),
        "a machine that is down has something to do"
    );
}

#[test]
fn plan_that_changes_no_container_is_not_empty() {
    let service = ServicePlan {
        change: ServiceChange::Update.into(),
        ..Default::default()
    };
    let plan = Plan {
        services: vec![service],
        ..Default::default()
    };
    assert!(!is_empty(&plan));
    assert!(draw(&plan).contains("no container changes"));
}

#[test]
fn pre_deploy_command_is_drawn_before_the_steps() {
    let words = ["sh", "-c", "echo 'a' $B", ""].map(str::to_owned).to_vec();
    let mut plan = plan();
    plan.services[1].pre_deploy = Some(PreDeployStep {
        id: "shop/web/pre-deploy".into(),
        machine_name: "m1".into(),
        command: words,
        ..Default::default()
    });
    let text = anstream::adapter::strip_str(&draw(&plan)).to_string();
    let at = text
        .find("      > m1  pre-deploy: sh -c 'echo '\\''a'\\'' $B' ''\n")
        .unwrap();
    assert!(
        at < text.find("image changed").unwrap(),
        "before the first step: {text}"
    );
    assert_eq!(
        step_label(&plan, "shop/web/pre-deploy").as_deref(),
        Some("> pre-deploy of shop/web on m1")
    );
}

#[test]
fn step_label_names_volume_or_service_and_machine() {
    assert_eq!(
        step_label(&plan(), "v1").as_deref(),
        Some("volume shop_data on m1")
    );
    assert_eq!(
        step_label(&plan(), "s2").as_deref(),
        Some("~ shop/web on machine-2")
    );
    assert_eq!(step_label(&plan(), "nope"), None);
}

#[test]
fn plan_of_a_hostile_machine_cannot_control_the_terminal() {
    const EVIL: &str = "\u{1b}[2J\u{1b}]0;t\u{7}\r";
    let evil = |text: &mut String| text.push_str(EVIL);
    let mut plan = plan();
    for step in &mut plan.volumes {
        evil(&mut step.machine_name);
        evil(&mut step.volume.as_mut().unwrap().name);
    }
    for service in &mut plan.services {
        evil(&mut service.project);
        evil(&mut service.service);
        for field in &mut service.fields {
            evil(&mut field.field);
            evil(&mut field.old);
            evil(&mut field.new);
        }
        service.pre_deploy = Some(PreDeployStep {
            machine_name: EVIL.into(),
            command: vec![EVIL.into()],
            ..Default::default()
        });
        for step in &mut service.steps {
            evil(&mut step.machine_name);
            step.container_id.insert_str(0, EVIL);
            evil(&mut step.reason);
        }
    }
    plan.warnings.push(EVIL.into());
    let text = draw(&plan);
    assert!(!text.contains("[2J"), "{text:?}");
    assert!(!text.contains("]0;"), "{text:?}");
    assert!(!text.contains(['\r', '\u{7}']), "{text:?}");
}
