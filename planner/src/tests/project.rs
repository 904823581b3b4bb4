//! A typical project over its life, as a person would see the plans.

use std::fmt::Write as _;

use super::simulation::carry_out;
use super::*;

/// web (built) waits for api, api for db; db has a volume, web publishes a port.
fn guestbook() -> Vec<ServiceSpec> {
    let web = service("web", 3).port(8080).after("api");
    vec![
        ServiceSpec {
            built: true,
            image: "shop-web:3f9a".into(),
            ..web
        },
        service("api", 2).after("db"),
        service("db", 1).mount("shop_data"),
    ]
}

/// Everything a plan says but digests of things that change with each field we add.
fn rendered(plan: &v1::Plan) -> String {
    let mut text = String::new();
    for service in &plan.services {
        let change = format!("{:?}", service.change()).to_lowercase();
        let _ = writeln!(
            text,
            "[{}] {}/{}: {change}, {} wanted, {} kept",
            service.layer, service.project, service.service, service.desired, service.kept
        );
        for field in &service.fields {
            let _ = writeln!(
                text,
                "      {}: {} -> {}",
                field.field, field.old, field.new
            );
        }
        for step in &service.steps {
            let action = format!("{:?}", step.action()).to_lowercase();
            let order = match step.order() {
                UpdateOrder::Unspecified => String::new(),
                order => format!(" {order:?}"),
            };
            let old = if step.container_id.is_empty() {
                String::new()
            } else {
                format!(" {}", step.container_id)
            };
            let _ = writeln!(
                text,
                "    {}: {action}{old} on {}{order} ({})",
                step.id, step.machine_name, step.reason
            );
        }
    }
    for step in &plan.volumes {
        let _ = writeln!(
            text,
            "{}: {}",
            step.id,
            step.volume.as_ref().map_or("", |volume| &volume.name)
        );
    }
    for image in &plan.images {
        let _ = writeln!(
            text,
            "image {} for {} machines",
            image.image,
            image.machine_ids.len()
        );
    }
    for warning in &plan.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

#[test]
fn life_of_a_project() {
    let mut observed = cluster(&["m1", "m2", "m3"]);
    let mut specs = guestbook();

    let first = plan(&deploy(&specs), &observed).unwrap();
    insta::assert_snapshot!("first deployment", rendered(&first));
    carry_out(&first, &specs, &mut observed);

    let again = plan(&deploy(&specs), &observed).unwrap();
    assert!(is_empty(&again), "{}", rendered(&again));
    insta::assert_snapshot!("unchanged", rendered(&again));

    specs[0].image = "shop-web:77c1".into();
    let image = plan(&deploy(&specs), &observed).unwrap();
    insta::assert_snapshot!("image changed", rendered(&image));
    carry_out(&image, &specs, &mut observed);

    specs[1].replicas = 4;
    let up = plan(&deploy(&specs), &observed).unwrap();
    insta::assert_snapshot!("scaled up", rendered(&up));
    carry_out(&up, &specs, &mut observed);

    specs[1].replicas = 1;
    let down = plan(&deploy(&specs), &observed).unwrap();
    insta::assert_snapshot!("scaled down", rendered(&down));
    carry_out(&down, &specs, &mut observed);

    observed.machine("m1").up = false;
    specs[1].image = "api:2".into();
    let without = plan(&deploy(&specs), &observed).unwrap();
    insta::assert_snapshot!("one machine down", rendered(&without));
}

#[test]
fn the_same_question_gets_the_same_plan_in_any_order() {
    let specs = guestbook();
    let observed = cluster(&["m1", "m2", "m3"]).with_replicas(&specs[1], &["m2", "m3", "m2"]);
    let one = plan(&deploy(&specs), &observed).unwrap();

    let mut turned = observed.clone();
    turned.machines.reverse();
    turned
        .machines
        .iter_mut()
        .for_each(|machine| machine.replicas.reverse());
    let reversed: Vec<ServiceSpec> = specs.iter().rev().cloned().collect();
    let other = plan(&deploy(&reversed), &turned).unwrap();
    assert_eq!(one, other);
    assert_eq!(one.digest.len(), 64);
    assert_eq!(one.digest, digest(&one));

    let mut changed = specs.clone();
    changed[2].image = "db:2".into();
    assert_ne!(
        plan(&deploy(&changed), &observed).unwrap().digest,
        one.digest
    );
}

#[test]
fn a_built_image_goes_only_where_something_happens() {
    let mut observed = cluster(&["m1", "m2", "m3"]);
    let specs = guestbook();
    let web = &specs[0];
    observed = observed.with_replicas(web, &["m1", "m2"]).with_service(web);
    observed.machine("m3").arch = "aarch64".into();
    let one = plan(&deploy(std::slice::from_ref(web)), &observed);
    // api is known to nobody here.
    assert!(matches!(one, Err(PlanError::UnknownDependency { .. })));
    let alone = ServiceSpec {
        depends_on: vec![],
        ..web.clone()
    };
    let plan_of = |spec: ServiceSpec| plan(&deploy(&[spec]), &observed).unwrap();
    let more = plan_of(alone.clone());
    assert_eq!(
        more.images,
        [ImageTarget {
            image: web.image.clone(),
            machine_ids: vec![machine_id("m3").to_string()]
        }]
    );
    assert!(more.warnings.is_empty());
    let all = plan_of(alone.image("shop-web:new"));
    assert_eq!(all.images[0].machine_ids.len(), 3);
    assert_eq!(
        all.warnings,
        [
            "shop-web:new is built for one architecture but is needed on m3 (aarch64) and m1 and m2 (x86_64); limit the service with `x-machines`"
        ]
    );
}
