//! Extensions of the compose format: `x-ports` and `x-pre_deploy` as in Uncloud, `x-reschedule`.

use super::honoured::{found_in, pairs, spec};
use super::*;

#[test]
fn uncloud_ports() {
    let port = |yaml: &str| spec(&format!("x-ports: [\"{yaml}\"]")).ports.remove(0);
    let expected =
        |container_port, published_port, host_ip: &str, protocol: v1::Protocol| v1::PortSpec {
            container_port,
            published_port,
            host_ip: host_ip.into(),
            protocol: protocol.into(),
            ..Default::default()
        };
    assert_eq!(
        port("8080:80@host"),
        expected(80, 8080, "", v1::Protocol::Tcp)
    );
    assert_eq!(
        port("10.0.0.1:53:53/udp@host"),
        expected(53, 53, "10.0.0.1", v1::Protocol::Udp)
    );
    assert_eq!(
        port("[::1]:53:53@host"),
        expected(53, 53, "::1", v1::Protocol::Tcp)
    );
    assert_eq!(
        found_in(
            "x-ports: [\"app.example.com:8000/https\", \"x@host\", \"0:1@host\", \"nonsense\"]"
        ),
        [
            "warning 4:15 `app.example.com:8000/https` is not published: there is no ingress yet",
            "error 4:45 `x@host` is not a valid port of the machine",
            "error 4:55 `0:1@host` is not a valid port of the machine",
            "error 4:67 `nonsense` is not a port",
        ]
    );
}

#[test]
fn uncloud_ingress_is_reported() {
    for (yaml, expected) in [
        (
            "x-ports: [\"8000\"]",
            vec!["warning 4:15 `8000` is not published: there is no ingress yet"],
        ),
        (
            "x-ports: [\"app:8000\"]",
            vec!["error 4:15 `app` is not a full host name"],
        ),
        (
            "x-ports: [\"8000/tcp\"]",
            vec!["error 4:15 `8000/tcp`: an ingress serves HTTP, not TCP"],
        ),
        (
            "x-ports: [\"8000/smtp\"]",
            vec!["error 4:15 `8000/smtp`: unknown protocol `smtp`"],
        ),
        (
            "x-caddy: \"app.example.com { reverse_proxy }\"",
            vec!["warning 4:5 `x-caddy` is ignored: there is no ingress yet"],
        ),
        (
            "x-caddy: {config: ./Caddyfile}",
            vec!["warning 4:5 `x-caddy` is ignored: there is no ingress yet"],
        ),
        (
            "x-caddy: {confg: x}",
            vec![
                "warning 4:5 `x-caddy` is ignored: there is no ingress yet",
                "error 4:14 `x-caddy` must be the text of a Caddyfile, not a mapping",
                "error 4:15 unknown key `confg` in `x-caddy`",
            ],
        ),
        (
            "x-caddy: x\nx-ports: [\"8000\"]",
            vec![
                "warning 4:5 `x-caddy` is ignored: there is no ingress yet",
                "warning 5:15 `8000` is not published: there is no ingress yet",
                "error 5:15 `x-caddy` and ports of the ingress exclude each other",
            ],
        ),
    ] {
        assert_eq!(found_in(yaml), expected, "{yaml}");
    }
}

#[test]
fn reschedule() {
    assert_eq!(spec("x-reschedule: 2m").reschedule_after_ms, Some(120_000));
    assert_eq!(spec("user: app").reschedule_after_ms, None);
    assert_eq!(
        found_in("x-reschedule: 5s"),
        ["error 4:19 `x-reschedule` is shorter than 10s, in which a machine can start again"]
    );
    assert_eq!(found_in("x-reschedule: soon").len(), 1);
    assert_eq!(found_in("x-reschedule: -1m").len(), 1);
}

#[test]
fn uncloud_pre_deploy() {
    let hook = spec("x-pre_deploy:\n  command: [migrate, up]\n  environment: {A: 1}\n  privileged: false\n  timeout: 10m\n  user: app")
        .pre_deploy
        .unwrap();
    assert_eq!(
        hook,
        v1::PreDeploy {
            command: vec!["migrate".into(), "up".into()],
            environment: pairs(&[("A", "1")]),
            privileged: Some(false),
            timeout_ms: 600_000,
            user: "app".into(),
        }
    );
    assert_eq!(
        spec("x-pre_deploy: {command: \"sh -c 'x y'\"}")
            .pre_deploy
            .unwrap()
            .command,
        ["sh", "-c", "x y"]
    );
    assert_eq!(
        found_in("x-pre_deploy: {comand: x}"),
        [
            "error 4:20 unknown key `comand` in `x-pre_deploy`",
            "error 4:19 `x-pre_deploy` has no `command`",
        ]
        .map(String::from)
        .into_iter()
        .rev()
        .collect::<Vec<_>>()
    );
}

#[test]
fn pre_deploy_variable_without_value_comes_from_environment() {
    let text = "services:\n  web:\n    image: x\n    x-pre_deploy:\n      command: migrate\n      environment: KEYS\n";
    for keys in ["[TOKEN, A=1, MISSING]", "{TOKEN: , A: 1, MISSING: }"] {
        let request =
            with_environment(request(&text.replace("KEYS", keys)), &[("TOKEN", "secret")]);
        let hook = project_of(&request).services[0].spec.pre_deploy.clone();
        assert_eq!(
            hook.unwrap().environment,
            pairs(&[("A", "1"), ("TOKEN", "secret")]),
            "{keys}"
        );
        let found = found(&request);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0]
                .ends_with("the variable `MISSING` has no value and is not set on this computer"),
            "{found:?}"
        );
    }
}

#[test]
fn pre_deploy_values_of_wrong_type_are_errors() {
    let hook = |keys: &str| format!("x-pre_deploy: {{command: x, {keys}}}");
    let privileged = |value: &str| {
        spec(&hook(&format!("privileged: {value}")))
            .pre_deploy
            .unwrap()
            .privileged
    };
    assert_eq!(privileged("\"true\""), Some(true));
    assert_eq!(privileged("\"false\""), Some(false));
    for (keys, expected) in [
        (
            "privileged: maybe",
            "error 4:44 `privileged` must be `true` or `false`",
        ),
        (
            "privileged: [true]",
            "error 4:44 `privileged` must be `true` or `false`",
        ),
        (
            "user: [a]",
            "error 4:38 `user` must be a string, not a list",
        ),
        (
            "environment: {A: [1]}",
            "error 4:49 `A` must be a string, not a list",
        ),
        (
            "environment: [1]",
            "error 4:46 a variable must be a string, not a number",
        ),
        (
            "environment: A=1",
            "error 4:45 `environment` must be a mapping or a list, not a string",
        ),
    ] {
        assert_eq!(found_in(&hook(keys)), [expected], "{keys}");
    }
}
