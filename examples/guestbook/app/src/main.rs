//! The guestbook: one small program with two jobs, `web` and `worker`, and their healthchecks.
//!
//! It runs in an image with nothing else in it (`FROM scratch`): no shell, no curl. So it is its
//! own healthcheck, and as process 1 it must handle SIGTERM itself. Everything it remembers is in
//! Redis.

mod http;
mod page;
mod redis;
mod signal;
mod web;
mod worker;

use std::process::ExitCode;

const USAGE: &str = "usage: guestbook web | worker | healthcheck web | healthcheck worker

environment: REDIS   host:port of Redis, redis:6379 unless set
             LISTEN  address of the page, 0.0.0.0:8080 unless set";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let redis = std::env::var("REDIS").unwrap_or_else(|_| "redis:6379".into());
    let listen = std::env::var("LISTEN").unwrap_or_else(|_| "0.0.0.0:8080".into());
    let outcome = match words.as_slice() {
        ["web"] => web::run(&listen, redis),
        ["worker"] => worker::run(&redis, &replica()),
        ["healthcheck", "web"] => web::healthcheck(&listen),
        ["healthcheck", "worker"] => worker::healthcheck(&redis, &replica()),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The host name: in a container, the beginning of its id.
fn replica() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "unknown".into() } else { name.trim().into() }
}
