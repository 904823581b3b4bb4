//! As much of HTTP as it takes to look at a page: no connection is kept, no redirect followed.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, ensure};

const TIMEOUT: Duration = Duration::from_secs(5);

/// The body of a page; a status other than 200 is an error.
pub fn get(address: &str, port: u16, path: &str) -> anyhow::Result<String> {
    let answer = ask(
        address,
        port,
        &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"),
    )?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer has no end of headers")?;
    ensure!(
        status(head) == Some(200),
        "http://{address}:{port}{path} answers {head}\n{body}"
    );
    Ok(body.to_owned())
}

/// Sends a form to `/`; a status of 400 and up is an error.
pub fn post(address: &str, port: u16, form: &str) -> anyhow::Result<()> {
    let length = form.len();
    let answer = ask(
        address,
        port,
        &format!(
            "POST / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}"
        ),
    )?;
    ensure!(
        status(&answer).is_some_and(|status| status < 400),
        "http://{address}:{port}/ answers {answer}"
    );
    Ok(())
}

fn ask(address: &str, port: u16, request: &str) -> anyhow::Result<String> {
    let place: SocketAddr = format!("{address}:{port}").parse()?;
    let answer = TcpStream::connect_timeout(&place, TIMEOUT).and_then(|mut stream| {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    });
    let answer = answer.with_context(|| format!("http://{place} does not answer"))?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The number in `HTTP/1.1 200 OK`.
fn status(answer: &str) -> Option<u16> {
    answer.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Answers one request and returns its first line.
    fn answering(answer: &'static str) -> (u16, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a visitor");
            let mut lines = BufReader::new(stream.try_clone().expect("a copy")).lines();
            let first = lines.next().expect("a line").expect("text");
            // All of the request, or closing resets the connection.
            for line in lines {
                if line.expect("text").is_empty() {
                    break;
                }
            }
            stream.write_all(answer.as_bytes()).expect("sent");
            first
        });
        (port, server)
    }

    #[test]
    fn a_page_is_its_body() {
        let (port, server) =
            answering("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>\r\n\r\nhello");
        assert_eq!(
            get("127.0.0.1", port, "/x").expect("answered"),
            "<p>\r\n\r\nhello"
        );
        assert_eq!(server.join().expect("ended"), "GET /x HTTP/1.1");
    }

    #[test]
    fn an_error_page_is_an_error() {
        let (port, server) = answering("HTTP/1.1 503 Service Unavailable\r\n\r\nno redis");
        let error = get("127.0.0.1", port, "/").expect_err("503").to_string();
        assert!(
            error.contains("503") && error.contains("no redis"),
            "{error}"
        );
        server.join().expect("ended");
    }

    #[test]
    fn nobody_there_is_an_error() {
        let port = TcpListener::bind("127.0.0.1:0")
            .expect("a port")
            .local_addr()
            .expect("an address")
            .port();
        let error = post("127.0.0.1", port, "a=b")
            .expect_err("refused")
            .to_string();
        assert_eq!(error, format!("http://127.0.0.1:{port} does not answer"));
    }
}
