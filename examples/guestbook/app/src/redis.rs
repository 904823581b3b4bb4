//! As much of Redis's protocol (RESP 2) as a guestbook needs.

use std::fmt;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::net::ToSocketAddrs;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

const CONNECT: Duration = Duration::from_secs(1);
/// Longer than the worker's blocking read.
const ANSWER: Duration = Duration::from_secs(5);
/// Connections kept for later; more are closed.
const MAX_IDLE: usize = 16;
/// An answer that claims to be larger is broken.
const MAX_BULK: usize = 1 << 20;
const MAX_ELEMENTS: usize = 10_000;
const MAX_DEPTH: usize = 8;

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Nil,
    Text(String),
    Number(i64),
    List(Vec<Value>),
    /// Redis refused the command.
    Refused(String),
}

impl Value {
    /// The elements of a list; none of anything else.
    pub fn items(&self) -> &[Value] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    /// The text; empty for anything else.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }

    /// Elements two by two, as in the answer of HGETALL.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.items().chunks_exact(2).map(|pair| (pair[0].text(), pair[1].text()))
    }
}

#[derive(Debug)]
pub enum Error {
    Connect { address: String, source: io::Error },
    Io(io::Error),
    Refused(String),
    Broken(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect { address, source } => write!(f, "cannot reach redis at {address}: {source}"),
            Self::Io(source) => write!(f, "redis stopped answering: {source}"),
            Self::Refused(reason) => write!(f, "redis says: {reason}"),
            Self::Broken(what) => write!(f, "this is not redis: {what}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Self {
        Self::Io(source)
    }
}

/// A connection.
pub struct Redis(BufReader<TcpStream>);

impl Redis {
    /// Resolves the name and connects to the first of its addresses that answers.
    pub fn connect(address: &str) -> Result<Self, Error> {
        let failed = |source| Error::Connect { address: address.to_owned(), source };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for candidate in address.to_socket_addrs().map_err(failed)? {
            match TcpStream::connect_timeout(&candidate, CONNECT) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(ANSWER))?;
                    stream.set_write_timeout(Some(ANSWER))?;
                    stream.set_nodelay(true)?;
                    return Ok(Self(BufReader::new(stream)));
                }
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    /// One command, one answer.
    pub fn call(&mut self, command: &[&str]) -> Result<Value, Error> {
        self.0.get_mut().write_all(&encode(command))?;
        match decode(&mut self.0, 0)? {
            Value::Refused(reason) => Err(Error::Refused(reason)),
            value => Ok(value),
        }
    }

    /// All of the commands or none of them.
    pub fn transaction(&mut self, commands: &[Vec<&str>]) -> Result<(), Error> {
        self.call(&["MULTI"])?;
        for command in commands {
            self.call(command)?;
        }
        let answers = self.call(&["EXEC"])?;
        match answers.items().iter().find_map(|answer| match answer {
            Value::Refused(reason) => Some(reason.clone()),
            _ => None,
        }) {
            Some(reason) => Err(Error::Refused(reason)),
            None => Ok(()),
        }
    }
}

/// Connections to one Redis, kept for the next request. Beside being quicker, it needs no name
/// lookup for each request, so a moment without DNS goes unnoticed.
pub struct Pool {
    address: String,
    idle: Mutex<Vec<Redis>>,
}

impl Pool {
    pub fn new(address: String) -> Self {
        Self { address, idle: Mutex::default() }
    }

    /// Runs `work` with a connection that answers, and keeps the connection if all went well.
    pub fn with<T>(&self, work: impl FnOnce(&mut Redis) -> Result<T, Error>) -> Result<T, Error> {
        let mut redis = loop {
            match self.idle().pop() {
                None => break Redis::connect(&self.address)?,
                // Asked before it is trusted: `work` is not to be run twice.
                Some(mut kept) => {
                    if kept.call(&["PING"]).is_ok() {
                        break kept;
                    }
                }
            }
        };
        let done = work(&mut redis)?;
        let mut idle = self.idle();
        if idle.len() < MAX_IDLE {
            idle.push(redis);
        }
        Ok(done)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Redis>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn encode(command: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", command.len());
    for word in command {
        out.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    out.into_bytes()
}

fn decode(from: &mut impl BufRead, depth: usize) -> Result<Value, Error> {
    if depth > MAX_DEPTH {
        return Err(Error::Broken("lists in lists without end"));
    }
    let mut line = String::new();
    from.take(4096).read_line(&mut line)?;
    if line.is_empty() {
        return Err(Error::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    let rest = line.trim_end();
    let (Some(kind), Some(rest)) = (rest.get(..1), rest.get(1..)) else {
        return Err(Error::Broken("an empty line"));
    };
    let number = || rest.parse::<i64>().map_err(|_| Error::Broken("a length that is not a number"));
    Ok(match kind {
        "+" => Value::Text(rest.into()),
        "-" => Value::Refused(rest.into()),
        ":" => Value::Number(number()?),
        "$" => match usize::try_from(number()?) {
            Err(_) => Value::Nil,
            Ok(length) if length > MAX_BULK => return Err(Error::Broken("an answer that is too long")),
            Ok(length) => {
                let mut bytes = vec![0; length + 2];
                from.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Value::Text(String::from_utf8_lossy(&bytes).into_owned())
            }
        },
        "*" => match usize::try_from(number()?) {
            Err(_) => Value::Nil,
            Ok(length) if length > MAX_ELEMENTS => return Err(Error::Broken("a list that is too long")),
            Ok(length) => {
                Value::List((0..length).map(|_| decode(from, depth + 1)).collect::<Result<_, _>>()?)
            }
        },
        _ => return Err(Error::Broken("an unknown kind of answer")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &str) -> Result<Value, Error> {
        decode(&mut bytes.as_bytes(), 0)
    }

    #[test]
    fn commands_are_arrays_of_byte_counted_words() {
        assert_eq!(encode(&["SET", "k", "ü"]), "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\nü\r\n".as_bytes());
    }

    #[test]
    fn answers_are_read() {
        assert_eq!(read("+OK\r\n").unwrap(), Value::Text("OK".into()));
        assert_eq!(read(":-3\r\n").unwrap(), Value::Number(-3));
        assert_eq!(read("$-1\r\n").unwrap(), Value::Nil);
        assert_eq!(read("$3\r\na\nb\r\n").unwrap(), Value::Text("a\nb".into()));
        let list = read("*2\r\n$1\r\na\r\n*1\r\n:1\r\n").unwrap();
        assert_eq!(list, Value::List(vec![Value::Text("a".into()), Value::List(vec![Value::Number(1)])]));
    }

    /// A Redis that says PONG, `conversations` times `answers` of them, and then hangs up.
    fn pongs(conversations: usize, answers: usize) -> (String, std::thread::JoinHandle<()>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            for stream in listener.incoming().take(conversations) {
                let mut stream = stream.unwrap();
                for _ in 0..answers {
                    let mut question = [0; 14];
                    stream.read_exact(&mut question).unwrap();
                    assert_eq!(&question, b"*1\r\n$4\r\nPING\r\n");
                    stream.write_all(b"+PONG\r\n").unwrap();
                }
            }
        });
        (address, server)
    }

    #[test]
    fn connections_are_kept_and_dead_ones_replaced() {
        // The first is good for the first request, the check before the second, and the second;
        // then it hangs up.
        let (address, server) = pongs(2, 3);
        let pool = Pool::new(address);
        for _ in 0..3 {
            assert_eq!(pool.with(|redis| redis.call(&["PING"])).unwrap(), Value::Text("PONG".into()));
        }
        pool.with(|redis| redis.call(&["PING"])).unwrap();
        server.join().unwrap();
        assert!(matches!(pool.with(|redis| redis.call(&["PING"])), Err(Error::Connect { .. })));
    }

    #[test]
    fn what_is_not_redis_is_refused() {
        for bad in ["HTTP/1.1 400\r\n", "$99999999\r\n", "*99999999\r\n", "$x\r\n", "\r\n", "", "$5\r\nab"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
        assert!(read(&"*1\r\n".repeat(20)).is_err());
    }
}
