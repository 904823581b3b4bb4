//! Sends images to the machines that do not have them.

use std::process::Stdio;

use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use uc_api::v1::push_image_request::Message;
use uc_api::v1::{
    ImageTarget, MissingImagesRequest, Plan, PushImageEnd, PushImageRequest, PushImageStart,
};

use super::{docker, no_docker, try_docker};
use crate::connect::{Client, ask, within};
use crate::error::{CliError, CliResult, Kind};
use crate::ui::{Task, Ui};
use crate::words::counted;

/// Bytes of an archive in one message.
const CHUNK: usize = 64 * 1024;
/// Messages of an archive that may wait for the connection: 1 MiB.
const CHUNKS_WAITING: usize = 16;

/// Sends each built image of the plan to the machines that do not have it.
pub(crate) async fn push_missing(ui: &Ui, client: &Client, plan: &Plan) -> CliResult {
    if plan.images.is_empty() {
        return Ok(());
    }
    let request = MissingImagesRequest {
        images: plan.images.clone(),
    };
    let missing = ask(client.deploy().missing_images(within(60, request)))
        .await?
        .missing;
    let progress = ui.progress();
    for target in missing
        .into_iter()
        .filter(|target| !target.machine_ids.is_empty())
    {
        let size = match try_docker(&["image", "inspect", "--format", "{{.Size}}", &target.image])
            .await?
        {
            Ok(size) => size.parse().unwrap_or(0),
            Err(reason) => {
                return Err(CliError::failed(format!(
                    "image {} not found on this computer",
                    target.image
                ))
                .source(reason)
                .hint("build it: run `uc deploy` without --no-build"));
            }
        };
        let to = counted(target.machine_ids.len() as u64, "machine", "machines");
        let task = progress.transfer(format!("image {} → {to}", target.image), size);
        match push(client, &target, &task).await {
            Ok(()) => task.done(""),
            Err(error) => {
                task.failed("");
                return Err(error.context(format!("image {}", target.image)));
            }
        }
    }
    Ok(())
}

async fn push(client: &Client, target: &ImageTarget, task: &Task) -> CliResult {
    let mut save = docker()
        .args(["save", "--", &target.image])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(no_docker)?;
    let (Some(mut archive), Some(mut complaints)) = (save.stdout.take(), save.stderr.take()) else {
        return Err(CliError::failed("cannot read the output of docker save"));
    };
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING);
    let start = PushImageStart {
        image: target.image.clone(),
        machine_ids: target.machine_ids.clone(),
    };
    let mut api = client.deploy();
    let call = api.push_image(ReceiverStream::new(receiver));
    let feed = async move {
        let mut message = Message::Start(start);
        loop {
            // The daemon ended the call: its answer says why.
            if sender
                .send(PushImageRequest {
                    message: Some(message),
                })
                .await
                .is_err()
            {
                return Ok(());
            }
            let mut chunk = Vec::with_capacity(CHUNK);
            let mut part = (&mut archive).take(CHUNK as u64);
            let count = part.read_to_end(&mut chunk).await.map_err(|error| {
                CliError::failed("cannot read the output of docker save").source(error)
            })?;
            if count == 0 {
                break;
            }
            task.advance(count as u64);
            message = Message::Chunk(chunk);
        }
        let mut text = String::new();
        _ = (&mut complaints)
            .take(16 * 1024)
            .read_to_string(&mut text)
            .await;
        let status = save.wait().await.map_err(no_docker)?;
        if !status.success() {
            return Err(CliError::failed(format!("docker save failed ({status})"))
                .source(text.trim().to_owned()));
        }
        let end = PushImageRequest {
            message: Some(Message::End(PushImageEnd {})),
        };
        let _the_answer_says_why = sender.send(end).await;
        Ok(())
    };
    tokio::pin!(call);
    tokio::pin!(feed);
    // If the archive cannot be read completely, the call is dropped, so that no machine loads a
    // part of it.
    let results = tokio::select! {
        answer = &mut call => answer,
        fed = &mut feed => {
            fed?;
            call.await
        }
    };
    let failed: Vec<_> = results?
        .into_inner()
        .results
        .into_iter()
        .filter(|result| !result.error.is_empty())
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = failed
        .iter()
        .map(|result| format!("{}: {}", result.machine_name, result.error))
        .collect();
    Err(CliError::new(Kind::Partial, "not all machines could load it").source(list.join("\n")))
}
