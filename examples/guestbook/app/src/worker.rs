//! The `worker` service: counts entries and words as they come in.
//!
//! Workers form a consumer group, so each entry goes to one of them and several can run at once (as
//! they do while a new revision replaces an old one). Counting an entry and acknowledging it are
//! one transaction: nothing is counted twice because a worker was stopped in between.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::redis;
use crate::redis::Redis;
use crate::redis::Value;
use crate::signal::Termination;
use crate::web::COUNTS;
use crate::web::ENTRIES;

const GROUP: &str = "workers";
const BATCH: &str = "100";
/// Milliseconds one read waits for entries.
const BLOCK_MS: &str = "500";
/// Entries that another worker took and did not finish for so long are done again, in milliseconds.
const ABANDONED_MS: &str = "30000";
/// Seconds after which a worker that no longer turns is unhealthy.
const ALIVE_S: &str = "15";
const RETRY: Duration = Duration::from_secs(1);

/// Works until SIGTERM; a batch that was begun is finished.
pub fn run(address: &str, replica: &str) -> Result<(), Box<dyn Error>> {
    let termination = Termination::install()?;
    let stopping = Arc::new(AtomicBool::new(false));
    let (flag, (address, replica)) = (Arc::clone(&stopping), (address.to_owned(), replica.to_owned()));
    println!("worker {replica} begins");
    let work = std::thread::spawn(move || {
        while !flag.load(Ordering::SeqCst) {
            if let Err(error) = Redis::connect(&address).and_then(|redis| turn(redis, &replica, &flag)) {
                eprintln!("{error}; trying again");
                std::thread::park_timeout(RETRY);
            }
        }
        println!("worker {replica} ends");
    });
    termination.wait();
    stopping.store(true, Ordering::SeqCst);
    work.thread().unpark();
    let _ = work.join();
    Ok(())
}

/// Whether this container's worker said lately that it is alive.
pub fn healthcheck(address: &str, replica: &str) -> Result<(), Box<dyn Error>> {
    match Redis::connect(address)?.call(&["EXISTS", &alive_key(replica)])? {
        Value::Number(1) => Ok(()),
        _ => Err(format!("worker {replica} has not reported for {ALIVE_S} s").into()),
    }
}

fn alive_key(replica: &str) -> String {
    format!("guestbook:worker:{replica}")
}

fn turn(mut redis: Redis, replica: &str, stopping: &AtomicBool) -> Result<(), redis::Error> {
    match redis.call(&["XGROUP", "CREATE", ENTRIES, GROUP, "0", "MKSTREAM"]) {
        Err(redis::Error::Refused(reason)) if reason.starts_with("BUSYGROUP") => {}
        other => drop(other?),
    }
    while !stopping.load(Ordering::SeqCst) {
        redis.call(&["SET", &alive_key(replica), "1", "EX", ALIVE_S])?;
        let claimed =
            redis.call(&["XAUTOCLAIM", ENTRIES, GROUP, replica, ABANDONED_MS, "0", "COUNT", BATCH])?;
        count(&mut redis, claimed.items().get(1))?;
        let group = ["XREADGROUP", "GROUP", GROUP, replica, "COUNT", BATCH, "BLOCK", BLOCK_MS];
        let fresh = redis.call(&[group.as_slice(), &["STREAMS", ENTRIES, ">"]].concat())?;
        count(&mut redis, fresh.items().first().and_then(|stream| stream.items().get(1)))?;
    }
    Ok(())
}

fn count(redis: &mut Redis, entries: Option<&Value>) -> Result<(), redis::Error> {
    let Some(batch) = entries.map(tally).filter(|batch| !batch.ids.is_empty()) else { return Ok(()) };
    let (entries, words) = (batch.ids.len().to_string(), batch.words.to_string());
    let ids = batch.ids.iter().map(String::as_str);
    redis.transaction(&[
        vec!["HINCRBY", COUNTS, "entries", &entries],
        vec!["HINCRBY", COUNTS, "words", &words],
        ["XACK", ENTRIES, GROUP].into_iter().chain(ids).collect(),
    ])?;
    println!("counted {entries} entries, {words} words");
    Ok(())
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    ids: Vec<String>,
    words: usize,
}

fn tally(entries: &Value) -> Tally {
    let mut tally = Tally::default();
    for entry in entries.items() {
        let Some(id) = entry.items().first() else { continue };
        tally.ids.push(id.text().to_owned());
        let texts = entry.items().get(1).into_iter().flat_map(Value::pairs).filter(|(key, _)| *key == "text");
        tally.words += texts.map(|(_, text)| text.split_whitespace().count()).sum::<usize>();
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_words_are_counted() {
        let text = |text: &str| Value::Text(text.into());
        let entry = |id: &str, words: &str| {
            let fields = ["name", "two words", "text", words].map(text).to_vec();
            Value::List(vec![text(id), Value::List(fields)])
        };
        // The second was trimmed away before it was counted: it has no fields any more.
        let gone = Value::List(vec![text("2-0"), Value::Nil]);
        let tally = tally(&Value::List(vec![entry("1-0", "a b  c"), gone, entry("3-0", "")]));
        assert_eq!(tally, Tally { ids: vec!["1-0".into(), "2-0".into(), "3-0".into()], words: 3 });
    }
}
