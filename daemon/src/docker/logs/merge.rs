//! Several streams of lines, each in time order, as one stream in time order.
//!
//! The earliest line is passed on once every other stream has a later one. A stream that sends
//! nothing would hold up the others forever, so after a while it is not waited for until it sends
//! something again. Lines that such a stream sends late come late.

use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, Stream, StreamExt as _};

/// How long lines are held back for a stream that sends nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For a stream that has sent nothing yet: the time to read and send the first line of its
    /// history.
    pub(crate) first: Duration,
    /// For a stream that has sent lines.
    pub(crate) next: Duration,
}

impl Patience {
    /// For streams that end on their own, so that waiting for each of them always ends.
    pub(crate) const UNTIL_END: Self = {
        let year = Duration::from_secs(365 * 24 * 60 * 60);
        Self {
            first: year,
            next: year,
        }
    };
}

/// Merges streams; `time_of` gives the time of an item, and each item comes with the tag of its
/// stream.
pub(crate) fn merge<T, I>(
    sources: Vec<(T, BoxStream<'static, I>)>,
    time_of: fn(&I) -> i64,
    patience: Patience,
) -> impl Stream<Item = (T, I)> + Send
where
    T: Clone + Send + 'static,
    I: Send + 'static,
{
    let sources = sources
        .into_iter()
        .map(|(tag, stream)| Source {
            tag,
            stream,
            head: None,
            state: State::Silent,
        })
        .collect::<Vec<_>>();
    futures_util::stream::unfold(sources, move |mut sources| async move {
        loop {
            fill_heads(&mut sources, patience).await;
            sources.retain(|source| source.state != State::Ended || source.head.is_some());
            if sources.is_empty() {
                return None;
            }
            let first = sources
                .iter_mut()
                .filter(|source| source.head.is_some())
                .min_by_key(|source| source.head.as_ref().map(time_of));
            if let Some(source) = first
                && let Some(head) = source.head.take()
            {
                let tag = source.tag.clone();
                return Some(((tag, head), sources));
            }
        }
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It has sent nothing yet.
    Silent,
    /// It has sent something, and its next item is waited for.
    Sending,
    /// Its next item is not waited for.
    Quiet,
    Ended,
}

struct Source<T, I> {
    tag: T,
    stream: BoxStream<'static, I>,
    /// The next item, not yet passed on.
    head: Option<I>,
    state: State,
}

impl<T, I> Source<T, I> {
    /// How long the others wait for this one; `None`: they do not.
    fn waited_for(&self, patience: Patience) -> Option<Duration> {
        match self.state {
            _ if self.head.is_some() => None,
            State::Silent => Some(patience.first),
            State::Sending => Some(patience.next),
            State::Quiet | State::Ended => None,
        }
    }
}

/// Waits until every stream that is waited for has a head, and at least one stream has.
async fn fill_heads<T, I>(sources: &mut [Source<T, I>], patience: Patience) {
    let start = tokio::time::Instant::now();
    loop {
        let has_head = sources.iter().any(|source| source.head.is_some());
        let wait = sources
            .iter()
            .filter_map(|source| source.waited_for(patience))
            .max();
        let open: Vec<&mut Source<T, I>> = sources
            .iter_mut()
            .filter(|source| source.head.is_none() && source.state != State::Ended)
            .collect();
        if open.is_empty() {
            return;
        }
        let next = futures_util::future::select_all(open.into_iter().map(|source| {
            Box::pin(async move {
                let next = source.stream.next().await;
                source.state = if next.is_some() {
                    State::Sending
                } else {
                    State::Ended
                };
                source.head = next;
            })
        }));
        match wait {
            // Nothing can be passed on, so there is nothing to hold back.
            _ if !has_head => {
                next.await;
            }
            Some(wait) => {
                if tokio::time::timeout_at(start + wait, next).await.is_err() {
                    let waited = start.elapsed();
                    for source in &mut *sources {
                        let limit = source.waited_for(patience);
                        if limit.is_some_and(|limit| limit <= waited) {
                            source.state = State::Quiet;
                        }
                    }
                }
            }
            // Take what has arrived from quiet streams, without waiting for them.
            None => {
                if next.now_or_never().is_none() {
                    return;
                }
            }
        }
    }
}
