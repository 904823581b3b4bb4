//! Logs of containers, and commands in them.

use super::*;

pub(super) async fn logs_follow_until_the_container_exits(bench: Bench) {
    let id = bench
        .run(&service("follow", "echo a; sleep 0.5; echo b; sleep 0.2"))
        .await;
    let options = LogOptions {
        follow: true,
        ..Default::default()
    };
    assert_eq!(texts(&bench.lines(&id, options).await), ["out a", "out b"]);
    bench.engine.remove(&id).await.unwrap();
}

pub(super) async fn logs_are_limited_by_count_and_time(bench: Bench) {
    let id = bench
        .run(&service("cut", "echo a; sleep 1; echo b; sleep 1; echo c"))
        .await;
    bench.exited(&id).await;
    let all = bench.lines(&id, LogOptions::default()).await;
    assert_eq!(all.len(), 3);
    let tail = LogOptions {
        tail: Some(2),
        ..Default::default()
    };
    assert_eq!(texts(&bench.lines(&id, tail).await), ["out b", "out c"]);
    let middle = Some(all[1].time_ns / 1_000_000);
    let since = LogOptions {
        since_ms: middle,
        ..Default::default()
    };
    assert_eq!(texts(&bench.lines(&id, since).await), ["out b", "out c"]);
    let until = LogOptions {
        until_ms: middle,
        ..Default::default()
    };
    assert_eq!(texts(&bench.lines(&id, until).await), ["out a", "out b"]);
    bench.engine.remove(&id).await.unwrap();
}

pub(super) async fn exec_returns_output_and_exit_code(bench: Bench) {
    let id = bench.run(&service("exec", "sleep 1000")).await;
    let got = bench
        .exec(
            &id,
            words(&["sh", "-c", "echo out; sleep 0.1; echo err >&2; exit 5"]),
            b"",
        )
        .await;
    assert_eq!(got, ("out\n".into(), "err\n".into(), 5));
    bench.engine.remove(&id).await.unwrap();
}

pub(super) async fn exec_passes_standard_input(bench: Bench) {
    let id = bench.run(&service("stdin", "sleep 1000")).await;
    let got = bench.exec(&id, words(&["cat"]), b"hello\n").await;
    assert_eq!(got, ("hello\n".into(), String::new(), 0));
    bench.engine.remove(&id).await.unwrap();
}

pub(super) async fn exec_with_terminal_has_one_stream(bench: Bench) {
    let id = bench.run(&service("tty", "sleep 1000")).await;
    let options = ExecOptions {
        tty: true,
        ..words(&["sh", "-c", "echo out; sleep 0.1; echo err >&2; sleep 0.3"])
    };
    let session = bench.engine.exec(&id, options).await.unwrap();
    bench
        .engine
        .exec_resize(&session.id, 120, 40)
        .await
        .unwrap();
    let pieces: Vec<_> = timeout(SOON, session.output.map(Result::unwrap).collect())
        .await
        .unwrap();
    let text: Vec<u8> = pieces
        .into_iter()
        .flat_map(|piece| match piece {
            ExecOutput::Stdout(bytes) => bytes,
            ExecOutput::Stderr(bytes) => panic!("a terminal has no standard error: {bytes:?}"),
        })
        .collect();
    assert_eq!(String::from_utf8(text).unwrap(), "out\r\nerr\r\n");
    bench.engine.remove(&id).await.unwrap();
}

pub(super) async fn exec_of_unknown_command_fails_like_docker(bench: Bench) {
    let id = bench.run(&service("fail", "sleep 1000")).await;
    let (stdout, stderr, code) = bench.exec(&id, words(&["no-such-program"]), b"").await;
    // Docker 20.10 returns 126. Users get 127 from every engine (`node::exec`).
    assert!([126, 127].contains(&code), "{code}");
    assert!(
        format!("{stdout}{stderr}").contains("not found"),
        "{stdout} {stderr}"
    );
    bench.engine.stop(&id, Duration::ZERO).await.unwrap();
    let refused = bench.engine.exec(&id, words(&["true"])).await.unwrap_err();
    assert!(
        matches!(refused, EngineError::Refused { .. }),
        "{refused:?}"
    );
    bench.engine.remove(&id).await.unwrap();
    let mut spec = service("nothing", "true");
    spec.command = Some(v1::StringList {
        values: vec!["no-such-program".into()],
    });
    let id = bench.create(&spec).await;
    let refused = bench.engine.start(&id).await.unwrap_err();
    assert!(
        matches!(refused, EngineError::Refused { .. }),
        "{refused:?}"
    );
    bench.engine.remove(&id).await.unwrap();
}
