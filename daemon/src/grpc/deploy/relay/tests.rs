use tokio_stream::wrappers::ReceiverStream;
use uc_api::v1::push_image_request::Message;
use uc_api::v1::{PushImageEnd, PushImageStart};

use super::*;
use crate::cluster::peers::tests::remote_node;
use crate::engine::fake::ARCHIVE;
use crate::node::tests::{Bench, bench};

fn request(message: Message) -> PushImageRequest {
    PushImageRequest {
        message: Some(message),
    }
}

fn start() -> PushImageRequest {
    request(Message::Start(PushImageStart {
        image: "built:1".into(),
        ..Default::default()
    }))
}

/// The fake engine takes this for an archive of `built:1`, so it loads the image if the stream ends
/// after it.
fn archive() -> PushImageRequest {
    request(Message::Chunk(format!("{ARCHIVE}built:1").into_bytes()))
}

fn end() -> PushImageRequest {
    request(Message::End(PushImageEnd {}))
}

async fn has_image(bench: &Bench) -> bool {
    let missing = bench.node.missing_images(vec!["built:1".into()]).await;
    missing.unwrap().is_empty()
}

#[tokio::test]
async fn relay_loads_a_whole_archive_on_every_machine() {
    let machines = [bench(), bench()];
    let mut senders = Vec::new();
    let mut loads = Vec::new();
    for machine in &machines {
        let (sender, receiver) = channel();
        senders.push(sender);
        loads.push(tokio::spawn(load(remote_node(&machine.node), receiver)));
    }
    let incoming = tokio_stream::iter([Ok(archive()), Ok(end())]);
    relay(start(), incoming, senders).await.unwrap();
    for load in loads {
        load.await.unwrap().unwrap();
    }
    for machine in &machines {
        assert!(has_image(machine).await);
    }
}

#[tokio::test]
async fn relay_of_a_broken_stream_fails_the_load_of_the_machine() {
    let machine = bench();
    let (sender, receiver) = channel();
    let load = tokio::spawn(load(remote_node(&machine.node), receiver));
    let incoming = tokio_stream::iter([Ok(archive()), Err(Status::cancelled("client left"))]);
    let failure = relay(start(), incoming, vec![sender]).await.unwrap_err();
    assert_eq!(failure.message, "client left");
    let failure = load.await.unwrap().unwrap_err();
    assert!(failure.message.contains("not sent to its end"), "{failure}");
    assert!(!has_image(&machine).await);
}

#[tokio::test]
async fn relay_of_a_stream_without_end_fails_on_every_machine() {
    let machine = bench();
    let (sender, receiver) = channel();
    let load = tokio::spawn(load(remote_node(&machine.node), receiver));
    let incoming = tokio_stream::iter([Ok(archive())]);
    let failure = relay(start(), incoming, vec![sender]).await.unwrap_err();
    assert!(failure.message.contains("not sent to its end"), "{failure}");
    assert!(load.await.unwrap().is_err());
    assert!(!has_image(&machine).await);
}

#[tokio::test(start_paused = true)]
async fn relay_gives_up_a_machine_that_accepts_nothing() {
    let (sender, receiver) = channel();
    let endless = tokio_stream::iter(std::iter::repeat_with(|| Ok(archive())));
    relay(start(), endless, vec![sender]).await.unwrap();
    assert!(receiver.stalled.is_cancelled());
}

#[tokio::test]
async fn relay_that_is_dropped_fails_the_load_of_the_machine() {
    let machine = bench();
    let (sender, receiver) = channel();
    let load = tokio::spawn(load(remote_node(&machine.node), receiver));
    let (client, incoming) = mpsc::channel(1);
    let relaying = tokio::spawn(relay(start(), ReceiverStream::new(incoming), vec![sender]));
    client.send(Ok(archive())).await.unwrap();
    // The handler of a call is dropped when the client resets it.
    relaying.abort();
    assert!(relaying.await.unwrap_err().is_cancelled());
    assert!(load.await.unwrap().is_err());
    assert!(!has_image(&machine).await);
}
