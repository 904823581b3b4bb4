//! Contents on their way to the machine one talks to, which hands them on.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use uc_api::ContentHash;
use uc_api::content::CHUNK;
use uc_api::v1::content_part::Part;
use uc_api::v1::{ContentPart, ContentStart, MissingContentsRequest};

use super::{Content, Contents};
use crate::connect::{Client, ask, within};
use crate::error::{CliError, CliResult};
use crate::ui::{Task, Ui};

/// Parts that may wait for the connection: half a mebibyte.
const PARTS_WAITING: usize = 8;

/// Sends each content that the machine does not have.
pub(crate) async fn push_missing(ui: &Ui, client: &Client, contents: &Contents) -> CliResult {
    if contents.0.is_empty() {
        return Ok(());
    }
    let hashes = contents.0.keys().map(ToString::to_string).collect();
    let request = MissingContentsRequest { hashes };
    let missing = ask(client.deploy().missing_contents(within(60, request)))
        .await?
        .missing;
    let progress = ui.progress();
    for (hash, content) in &contents.0 {
        if !missing.iter().any(|missing| missing == hash.as_str()) {
            continue;
        }
        let label = format!("{} → {}", content.name, client.label);
        let task = progress.transfer(label, content.archive.len() as u64);
        match push(client, hash, content, &task).await {
            Ok(()) => task.done(""),
            Err(error) => {
                task.failed("");
                return Err(error.context(&content.name));
            }
        }
    }
    Ok(())
}

async fn push(client: &Client, hash: &ContentHash, content: &Content, task: &Task) -> CliResult {
    let (sender, receiver) = mpsc::channel(PARTS_WAITING);
    let mut api = client.deploy();
    let call = api.push_content(ReceiverStream::new(receiver));
    let start = Part::Start(ContentStart {
        hash: hash.to_string(),
        secret: content.secret,
    });
    let feed = async move {
        let mut parts = std::iter::once(start).chain(
            content
                .archive
                .chunks(CHUNK)
                .map(|chunk| Part::Chunk(chunk.to_vec())),
        );
        loop {
            let Some(part) = parts.next() else { return };
            let bytes = if let Part::Chunk(chunk) = &part {
                chunk.len()
            } else {
                0
            };
            // The daemon ended the call: its answer says why.
            if sender.send(ContentPart { part: Some(part) }).await.is_err() {
                return;
            }
            task.advance(bytes as u64);
        }
    };
    let (answer, ()) = tokio::join!(call, feed);
    answer.map(|_| ()).map_err(CliError::from)
}
