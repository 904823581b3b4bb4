//! Merges the logs of several replicas of this machine into one stream.

use std::time::Duration;

use futures_util::StreamExt as _;
use uc_api::v1;

use super::{NodeService, Replies};
use crate::engine::LogOptions;
use crate::engine::logs::{self, Patience};

/// A replica that writes nothing for this long does not hold up the lines of the others.
const FOLLOWING: Patience =
    Patience::following(Duration::from_millis(50), Duration::from_millis(50));

impl NodeService {
    /// Lines in time order: history exactly, new lines as far as they arrive together. Where a
    /// replica's log cannot be read, an entry has the reason.
    pub(crate) async fn logs_of(&self, request: v1::NodeLogsRequest) -> Replies<v1::LogEntry> {
        let asked = request.request.unwrap_or_default();
        let options = LogOptions {
            follow: asked.follow,
            tail: u64::try_from(asked.tail).ok(),
            since_ms: Some(asked.since_ms).filter(|ms| *ms > 0),
            until_ms: Some(asked.until_ms).filter(|ms| *ms > 0),
        };
        let mut sources = Vec::new();
        let mut problems = Vec::new();
        for id in request.container_ids {
            let entry = self.entry(id.clone());
            let opened = async {
                let record = self.managed(&id).await?.record;
                let lines = self.engine.logs(&record.container_id, options).await?;
                Ok::<_, uc_api::Failure>((record, lines))
            };
            match opened.await {
                Ok((record, lines)) => {
                    let entry = v1::LogEntry {
                        project: record.project,
                        service: record.service,
                        container_id: record.container_id,
                        ..entry
                    };
                    sources.push((entry, lines));
                }
                Err(failure) => problems.push(Ok(v1::LogEntry {
                    problem: failure.message,
                    ..entry
                })),
            }
        }
        let patience = if options.follow {
            FOLLOWING
        } else {
            Patience::UNTIL_END
        };
        let lines = logs::merge(sources, logs::time_of, patience).map(|(entry, line)| {
            Ok(match line {
                Ok(line) => v1::LogEntry {
                    stream: line.stream.into(),
                    time_ns: line.time_ns,
                    message: line.message.to_vec(),
                    ..entry
                },
                Err(error) => v1::LogEntry {
                    problem: error.to_string(),
                    ..entry
                },
            })
        });
        let ended = self.cancel.clone().cancelled_owned();
        futures_util::stream::iter(problems)
            .chain(lines)
            .take_until(ended)
            .boxed()
    }

    fn entry(&self, container_id: String) -> v1::LogEntry {
        let identity = self.identity.borrow();
        v1::LogEntry {
            machine_id: identity
                .as_ref()
                .map(|identity| identity.machine.to_string())
                .unwrap_or_default(),
            machine_name: identity
                .as_ref()
                .map(|identity| identity.name.to_string())
                .unwrap_or_default(),
            container_id,
            ..Default::default()
        }
    }
}
