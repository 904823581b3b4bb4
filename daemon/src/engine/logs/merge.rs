//! Several streams of lines, each in time order, as one stream in time order.
//!
//! The earliest line is passed on once every other stream has a later one. A stream that sends
//! nothing would hold up the others forever, so after a while it is not waited for until it sends
//! something again. Lines that such a stream sends late come late.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};
use tokio::time::{Instant, timeout_at};

/// Items of a stream that are read before they are passed on. With two, the next item is read while
/// the first one is held back, so the streams are waited for at the same time and not one after the
/// other.
const READ_AHEAD: usize = 2;

/// How long lines are held back for a stream that sends nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For a stream that has sent nothing yet: the time to read and send the first line of its
    /// history.
    first: Duration,
    /// For a stream that has sent lines. It begins when the stream's last line arrives.
    next: Duration,
    /// Whether a line with a time in the future counts as written when it arrives. Otherwise a
    /// stream from a machine with a fast clock is held back for as long as the others send.
    future_is_now: bool,
}

impl Patience {
    /// For streams that end on their own, so that waiting for each of them always ends.
    pub(crate) const UNTIL_END: Self = {
        let year = Duration::from_secs(365 * 24 * 60 * 60);
        Self {
            first: year,
            next: year,
            future_is_now: false,
        }
    };

    /// For streams that continue until the reader has enough.
    pub(crate) const fn following(first: Duration, next: Duration) -> Self {
        Self {
            first,
            next,
            future_is_now: true,
        }
    }
}

/// Merges streams; `time_of` gives the time of an item in Unix nanoseconds, and each item comes
/// with the tag of its stream.
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
            items: VecDeque::with_capacity(READ_AHEAD),
            silent_since: None,
            has_sent: false,
            has_ended: false,
        })
        .collect::<Vec<_>>();
    let order_of = move |item: &I| {
        let time = time_of(item);
        if patience.future_is_now {
            time.min(unix_ns())
        } else {
            time
        }
    };
    futures_util::stream::unfold(sources, move |mut sources| async move {
        fill_heads(&mut sources, order_of, patience).await;
        sources.retain(|source| !source.has_ended || !source.items.is_empty());
        let first = sources
            .iter_mut()
            .filter(|source| !source.items.is_empty())
            .min_by_key(|source| source.items.front().map(|(order, _)| *order))?;
        let (_, item) = first.items.pop_front()?;
        let tag = first.tag.clone();
        Some(((tag, item), sources))
    })
}

struct Source<T, I> {
    tag: T,
    stream: BoxStream<'static, I>,
    /// The items that have arrived and are not yet passed on, each with its place in the order.
    items: VecDeque<(i64, I)>,
    /// Since when the stream has been asked for an item and has sent none. `None`: it is not
    /// asked, or it has just sent one.
    silent_since: Option<Instant>,
    has_sent: bool,
    has_ended: bool,
}

impl<T, I> Source<T, I> {
    /// Takes what has arrived, without waiting. Returns whether anything changed.
    fn receive(&mut self, order_of: impl Fn(&I) -> i64, context: &mut Context<'_>) -> bool {
        let mut changed = false;
        while !self.has_ended && self.items.len() < READ_AHEAD {
            match self.stream.poll_next_unpin(context) {
                Poll::Pending => {
                    self.silent_since.get_or_insert_with(Instant::now);
                    break;
                }
                Poll::Ready(Some(item)) => {
                    self.items.push_back((order_of(&item), item));
                    self.has_sent = true;
                }
                Poll::Ready(None) => self.has_ended = true,
            }
            self.silent_since = None;
            changed = true;
        }
        changed
    }

    /// Until when the others wait for this one; `None`: they do not.
    fn waited_for_until(&self, patience: Patience) -> Option<Instant> {
        let limit = if self.has_sent {
            patience.next
        } else {
            patience.first
        };
        let since = self.silent_since.filter(|_| self.items.is_empty())?;
        Some(since + limit)
    }
}

/// Waits until every stream that is waited for has an item, and at least one stream has. Returns
/// also when all streams have ended.
async fn fill_heads<T, I>(
    sources: &mut [Source<T, I>],
    order_of: impl Fn(&I) -> i64,
    patience: Patience,
) {
    let receive_all = |context: &mut Context<'_>, sources: &mut [Source<T, I>]| {
        let mut changed = false;
        for source in sources {
            changed |= source.receive(&order_of, context);
        }
        changed
    };
    loop {
        poll_fn(|context| {
            receive_all(context, sources);
            Poll::Ready(())
        })
        .await;
        let has_item = sources.iter().any(|source| !source.items.is_empty());
        let all_ended = sources.iter().all(|source| source.has_ended);
        let now = Instant::now();
        let wait = sources
            .iter()
            .filter_map(|source| source.waited_for_until(patience))
            .filter(|until| *until > now)
            .max();
        let arrival = poll_fn(|context| {
            if receive_all(context, sources) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        match wait {
            Some(until) if has_item => _ = timeout_at(until, arrival).await,
            None if has_item => return,
            _ if all_ended => return,
            // Nothing can be passed on, so there is nothing to hold back.
            _ => arrival.await,
        }
    }
}

fn unix_ns() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
