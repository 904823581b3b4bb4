//! Contents for containers and for other machines.

use tonic::Request;
use uc_api::v1::node_server::Node;

use super::super::tests::bench;
use super::*;
use crate::engine::suite::service;
use crate::files::tests::{one_file, parts, receive};

fn file(hash: &ContentHash, secret: bool) -> v1::FileSpec {
    v1::FileSpec {
        hash: hash.to_string(),
        target: "/etc/web.conf".into(),
        name: "config web".into(),
        secret,
    }
}

#[tokio::test]
async fn create_replica_refuses_missing_contents() {
    let bench = bench();
    let (hash, archive) = one_file("hello");
    let with_file = v1::ServiceSpec {
        files: vec![file(&hash, false)],
        ..service("web", "sleep 1000")
    };
    let with_variable = v1::ServiceSpec {
        secret_environment: [("PASSWORD".to_owned(), hash.to_string())].into(),
        ..service("web", "sleep 1000")
    };
    for (spec, what) in [
        (&with_file, "config web"),
        (&with_variable, "the value of PASSWORD"),
    ] {
        let failure = bench.create(spec.clone()).await.unwrap_err();
        assert_eq!(failure.code, Code::Refused);
        assert_eq!(
            failure.message,
            format!("{what} ({}) is not on this machine", hash.short())
        );
        assert!(failure.hint.unwrap().contains("deploy again"));
    }
    assert!(bench.node.observe_now().await.unwrap().replicas.is_empty());
    receive(bench.node.files(), parts(&hash, false, &archive))
        .await
        .unwrap();
    bench.create(with_file).await.unwrap();
    bench.create(with_variable).await.unwrap();
}

#[tokio::test]
async fn create_replica_mounts_contents_and_sets_secret_variables() {
    let bench = bench();
    let (open, open_archive) = one_file("open");
    let (secret, secret_archive) = one_file("s3cret");
    receive(bench.node.files(), parts(&open, false, &open_archive))
        .await
        .unwrap();
    receive(bench.node.files(), parts(&secret, true, &secret_archive))
        .await
        .unwrap();
    let spec = v1::ServiceSpec {
        files: vec![file(&open, false), file(&secret, true)],
        secret_environment: [("PASSWORD".to_owned(), secret.to_string())].into(),
        ..service("web", "true")
    };
    let contents = bench.node.contents(&spec).await.unwrap();
    let store = bench.state.path().join("files");
    let path = |hash: &ContentHash| store.join(hash.as_str()).join("content");
    let expected = [
        (open.to_string(), path(&open)),
        (secret.to_string(), path(&secret)),
    ];
    assert_eq!(contents.paths, BTreeMap::from(expected));
    assert_eq!(
        contents.secrets,
        [("PASSWORD".to_owned(), "s3cret".to_owned())].into()
    );
    let mut bad = spec;
    bad.files[0].hash = "../../etc".into();
    assert_eq!(
        bench.node.contents(&bad).await.unwrap_err().code,
        Code::Invalid
    );
}

#[tokio::test]
async fn read_file_sends_content_to_another_machine() {
    let (one, other) = (bench(), bench());
    let (hash, archive) = one_file(&"x".repeat(200_000));
    receive(one.node.files(), parts(&hash, true, &archive))
        .await
        .unwrap();
    assert!(
        one.node
            .missing_contents(&[hash.to_string()])
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        other
            .node
            .missing_contents(&[hash.to_string()])
            .await
            .unwrap(),
        [hash.to_string()]
    );
    assert_eq!(
        other
            .node
            .missing_contents(&["x".into()])
            .await
            .unwrap_err()
            .code,
        Code::Invalid
    );
    let read = |hash: &ContentHash| {
        Request::new(v1::ReadContentRequest {
            hash: hash.to_string(),
        })
    };
    let parts = Node::read_content(&one.node, read(&hash))
        .await
        .unwrap()
        .into_inner();
    other.node.files().receive(parts).await.unwrap();
    assert_eq!(
        other.node.files().archive(hash.clone()).await.unwrap(),
        (true, archive)
    );
    let (absent, _) = one_file("absent");
    let Err(status) = Node::read_content(&one.node, read(&absent)).await else {
        panic!("the content was not sent")
    };
    assert_eq!(Failure::from(status).code, Code::NotFound);
}
