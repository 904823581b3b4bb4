//! The `web` service: shows the guestbook and takes new entries.

use std::error::Error;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::http;
use crate::http::Request;
use crate::http::Response;
use crate::page::Entry;
use crate::page::Page;
use crate::redis;
use crate::redis::Pool;
use crate::redis::Redis;
use crate::signal::Termination;

/// The stream of entries; the worker reads it too.
pub const ENTRIES: &str = "guestbook:entries";
/// What the worker has counted.
pub const COUNTS: &str = "guestbook:counts";
/// More than this many are forgotten, oldest first.
const KEPT: &str = "10000";
const SHOWN: &str = "20";
const MAX_NAME: usize = 40;
const MAX_TEXT: usize = 300;
/// Requests at the same time. Further ones get an error.
const MAX_CONNECTIONS: usize = 128;
/// For a visitor to send a request, and to take the answer.
const VISITOR: Duration = Duration::from_secs(5);
/// For requests under way to end once the process was told to.
const GRACE: Duration = Duration::from_millis(800);

struct Web {
    redis: Pool,
    replica: String,
    stopping: AtomicBool,
    active: AtomicUsize,
}

/// Serves until SIGTERM; then takes no more requests, answers those under way, and returns.
pub fn run(listen: &str, redis: String) -> Result<(), Box<dyn Error>> {
    let termination = Termination::install()?;
    let listener =
        TcpListener::bind(listen).map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    let address = listener.local_addr()?;
    let web = Arc::new(Web {
        redis: Pool::new(redis),
        replica: crate::replica(),
        stopping: AtomicBool::new(false),
        active: AtomicUsize::new(0),
    });
    println!("replica {} listens on {address}", web.replica);

    let serving = Arc::clone(&web);
    let accept = std::thread::spawn(move || serving.accept(&listener));
    termination.wait();
    web.stopping.store(true, Ordering::SeqCst);
    // Wakes the thread that waits for a visitor.
    let _ = TcpStream::connect_timeout(&([127, 0, 0, 1], address.port()).into(), GRACE);
    let _ = accept.join();
    let deadline = Instant::now() + GRACE;
    while web.active.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("replica {} ends", web.replica);
    Ok(())
}

/// Asks the server in this container whether it is well.
pub fn healthcheck(listen: &str) -> Result<(), Box<dyn Error>> {
    let port: u16 = listen.rsplit(':').next().unwrap_or_default().parse()?;
    let mut stream = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), VISITOR)?;
    stream.set_read_timeout(Some(VISITOR))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200 ") {
        Ok(())
    } else {
        Err(answer.lines().next().unwrap_or("no answer").into())
    }
}

impl Web {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.stopping.load(Ordering::SeqCst) {
                return;
            }
            let Ok(stream) = stream else { continue };
            if self.active.fetch_add(1, Ordering::SeqCst) >= MAX_CONNECTIONS {
                self.active.fetch_sub(1, Ordering::SeqCst);
                let _ = Response::text("503 Service Unavailable", "too many visitors\n").write(&mut &stream);
                continue;
            }
            let web = Arc::clone(self);
            std::thread::spawn(move || {
                web.serve(&stream);
                web.active.fetch_sub(1, Ordering::SeqCst);
            });
        }
    }

    fn serve(&self, stream: &TcpStream) {
        let timeouts = stream.set_read_timeout(Some(VISITOR)).and(stream.set_write_timeout(Some(VISITOR)));
        let response = match timeouts.map_err(http::Error::from).and_then(|()| http::read(stream)) {
            Ok(request) => self.answer(&request),
            Err(http::Error::Bad(what)) => Response::text("400 Bad Request", format!("{what}\n")),
            // Nobody is left to tell.
            Err(http::Error::Io(_)) => return,
        };
        let _ = response.write(&mut &*stream);
    }

    fn answer(&self, request: &Request) -> Response {
        match (request.method.as_str(), request.path.as_str()) {
            // Says that this replica serves. Whether Redis does is Redis's own healthcheck: if it
            // were part of this one, a Redis that restarts would take all the pages away with it.
            ("GET", "/healthz") => Response::text("200 OK", "ok\n"),
            ("GET", "/replica") => Response::text("200 OK", format!("{}\n", self.replica)),
            ("GET", "/") => {
                let page = self.page();
                Response::html(status(&page), page.html())
            }
            ("GET", "/entries") => {
                let page = self.page();
                let body =
                    page.problem.as_ref().map_or_else(|| page.lines(), |problem| format!("{problem}\n"));
                Response::text(status(&page), body)
            }
            ("POST", "/") => self.post(&request.body),
            (_, "/" | "/entries" | "/healthz" | "/replica") => {
                Response::text("405 Method Not Allowed", "not here\n")
            }
            _ => Response::text("404 Not Found", "there is no such page\n"),
        }
    }

    fn page(&self) -> Page {
        let page =
            self.load().unwrap_or_else(|error| Page { problem: Some(error.to_string()), ..Page::default() });
        Page { replica: self.replica.clone(), ..page }
    }

    fn load(&self) -> Result<Page, redis::Error> {
        let (found, counts) = self.redis.with(|redis| {
            let found = redis.call(&["XREVRANGE", ENTRIES, "+", "-", "COUNT", SHOWN])?;
            Ok((found, redis.call(&["HGETALL", COUNTS])?))
        })?;
        let entries = found.items().iter().map(|item| entry(item.items().get(1))).collect();
        let counts = counts.pairs().map(|(name, number)| (name.to_owned(), number.to_owned())).collect();
        Ok(Page { entries, counts, ..Page::default() })
    }

    fn post(&self, body: &str) -> Response {
        let field = |name, limit| http::form_field(body, name).trim().chars().take(limit).collect::<String>();
        let (name, text) = (field("name", MAX_NAME), field("text", MAX_TEXT));
        if name.is_empty() || text.is_empty() {
            return Response::text("400 Bad Request", "an entry needs a name and a text\n");
        }
        let add = |redis: &mut Redis| {
            let id = ["XADD", ENTRIES, "MAXLEN", "~", KEPT, "*"];
            let fields = ["name", &name, "text", &text, "replica", &self.replica];
            redis.call(&[id.as_slice(), fields.as_slice()].concat())
        };
        match self.redis.with(add) {
            Ok(_) => Response::see_other("/"),
            Err(error) => Response::text("503 Service Unavailable", format!("not saved: {error}\n")),
        }
    }
}

fn status(page: &Page) -> &'static str {
    if page.problem.is_some() { "503 Service Unavailable" } else { "200 OK" }
}

fn entry(fields: Option<&redis::Value>) -> Entry {
    let mut entry = Entry::default();
    for (key, value) in fields.iter().flat_map(|fields| fields.pairs()) {
        match key {
            "name" => value.clone_into(&mut entry.name),
            "text" => value.clone_into(&mut entry.text),
            "replica" => value.clone_into(&mut entry.replica),
            _ => {}
        }
    }
    entry
}
