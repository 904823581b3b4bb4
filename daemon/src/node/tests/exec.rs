//! Commands that run in a replica.

use super::*;

fn asked(message: Asked) -> v1::ExecRequest {
    v1::ExecRequest {
        message: Some(message),
    }
}

fn exec_start(container: &str, command: &[&str]) -> v1::ExecStart {
    v1::ExecStart {
        container: container.into(),
        command: command.iter().map(|&word| word.to_owned()).collect(),
        ..Default::default()
    }
}

/// Returns the output of both streams and the exit code.
async fn exec(
    node: &NodeService,
    requests: Vec<v1::ExecRequest>,
) -> Result<(String, String, i32), Failure> {
    let mut answers = node
        .exec_with(stream::iter(requests.into_iter().map(Ok)))
        .await?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(answer) = answers.next().await {
        match answer?.message.unwrap() {
            Answer::Stdout(bytes) => stdout.extend(bytes),
            Answer::Stderr(bytes) => stderr.extend(bytes),
            Answer::ExitCode(code) => {
                return Ok((
                    String::from_utf8(stdout).unwrap(),
                    String::from_utf8(stderr).unwrap(),
                    code,
                ));
            }
        }
    }
    panic!("no exit code");
}

#[tokio::test]
async fn exec_passes_input_output_and_exit_code() {
    let bench = bench();
    let id = bench.running("sleep 1000").await;
    let start = |command: &[&str]| asked(Asked::Start(exec_start(&id, command)));
    let got = exec(
        &bench.node,
        vec![start(&["sh", "-c", "echo out; echo err >&2; exit 7"])],
    )
    .await
    .unwrap();
    assert_eq!(got, ("out\n".into(), "err\n".into(), 7));
    // The end of the caller's stream ends the input, as an explicit end does.
    let long = "x".repeat(10_000);
    let input = || asked(Asked::Stdin(long.clone().into_bytes()));
    let got = exec(&bench.node, vec![start(&["cat"]), input()])
        .await
        .unwrap();
    assert_eq!(got, (format!("{long}\n"), String::new(), 0));
    let closed = vec![
        start(&["cat"]),
        input(),
        asked(Asked::StdinClosed(true)),
        input(),
    ];
    assert_eq!(
        exec(&bench.node, closed).await.unwrap().0,
        format!("{long}\n")
    );
    // More input than a command that does not read accepts.
    let unread = vec![start(&["sleep", "0.05"]), input(), input()];
    assert_eq!(exec(&bench.node, unread).await.unwrap().2, 0);
    assert_eq!(
        exec(&bench.node, vec![start(&["no-such-program"])])
            .await
            .unwrap()
            .2,
        127
    );
}

#[tokio::test]
async fn exec_sets_terminal_size() {
    let bench = bench();
    let id = bench.running("sleep 1000").await;
    let size = |columns, rows| Some(v1::TerminalSize { columns, rows });
    let start = v1::ExecStart {
        tty: true,
        size: size(80, 24),
        ..exec_start(&id, &["sleep", "0.1"])
    };
    let requests = vec![
        asked(Asked::Start(start)),
        asked(Asked::Resize(size(120, 100_000).unwrap())),
        asked(Asked::Resize(size(0, 0).unwrap())),
    ];
    assert_eq!(exec(&bench.node, requests).await.unwrap().2, 0);
    assert_eq!(bench.engine.sizes(), [(80, 24), (120, 65535)]);
}

#[tokio::test]
async fn exec_requires_start_and_running_replica() {
    let bench = bench();
    let failure = exec(&bench.node, vec![asked(Asked::StdinClosed(true))])
        .await
        .unwrap_err();
    assert_eq!(failure.code, Code::Invalid);
    assert_eq!(
        exec(&bench.node, Vec::new()).await.unwrap_err().code,
        Code::Invalid
    );
    let absent = vec![asked(Asked::Start(exec_start("absent", &["true"])))];
    assert_eq!(
        exec(&bench.node, absent).await.unwrap_err().code,
        Code::NotFound
    );
    let id = bench.create(service("web", "true")).await.unwrap();
    let failure = exec(
        &bench.node,
        vec![asked(Asked::Start(exec_start(&id, &["true"])))],
    )
    .await
    .unwrap_err();
    assert_eq!(failure.code, Code::Refused);
    assert!(failure.message.ends_with("is not running"), "{failure:?}");
}

#[tokio::test]
async fn exec_ends_when_the_caller_disconnects() {
    let bench = bench();
    let id = bench.running("sleep 1000").await;
    let requests = vec![
        Ok(asked(Asked::Start(exec_start(&id, &["sleep", "1000"])))),
        Err(Status::cancelled("the caller disconnected")),
    ];
    let answers = bench.node.exec_with(stream::iter(requests)).await.unwrap();
    assert_eq!(answers.count().await, 0);
    let kept_open = stream::iter([Ok(asked(Asked::Start(exec_start(&id, &["sleep", "1000"]))))])
        .chain(stream::pending());
    drop(bench.node.exec_with(kept_open).await.unwrap());
    tokio::time::timeout(Duration::from_secs(5), bench.node.finish())
        .await
        .expect("both sessions have ended");
}
