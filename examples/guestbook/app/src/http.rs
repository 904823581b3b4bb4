//! HTTP/1.1, one request per connection, everything bounded.

use std::fmt;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;

const MAX_HEAD: u64 = 8 * 1024;
const MAX_BODY: usize = 8 * 1024;

/// What was asked.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    pub body: String,
}

/// Why there is no request to answer.
#[derive(Debug)]
pub enum Error {
    Io(io::Error),
    Bad(&'static str),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Bad(what) => f.write_str(what),
        }
    }
}

/// Reads one request.
pub fn read(from: impl Read) -> Result<Request, Error> {
    let mut reader = BufReader::new(from);
    let mut head = (&mut reader).take(MAX_HEAD);
    let mut line = String::new();
    head.read_line(&mut line)?;
    if line.is_empty() {
        return Err(Error::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    let mut words = line.split_ascii_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(Error::Bad("the first line is not a request"));
    };
    let (method, path) = (method.to_owned(), target.split('?').next().unwrap_or_default().to_owned());
    let mut length = 0;
    loop {
        let mut header = String::new();
        head.read_line(&mut header)?;
        if !header.ends_with('\n') {
            return Err(Error::Bad("the head of the request is too long or cut off"));
        }
        let header = header.trim_end();
        if header.is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(|_| Error::Bad("content-length is not a number"))?;
        }
    }
    if length > MAX_BODY {
        return Err(Error::Bad("the body is too long"));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Request { method, path, body: String::from_utf8_lossy(&body).into_owned() })
}

/// What is answered.
#[derive(Debug)]
pub struct Response {
    pub status: &'static str,
    pub content_type: &'static str,
    /// For a redirect.
    pub location: Option<&'static str>,
    pub body: String,
}

impl Response {
    pub fn text(status: &'static str, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", location: None, body: body.into() }
    }

    pub fn html(status: &'static str, body: String) -> Self {
        Self { status, content_type: "text/html; charset=utf-8", location: None, body }
    }

    pub fn see_other(location: &'static str) -> Self {
        Self { location: Some(location), ..Self::text("303 See Other", "") }
    }

    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let location = self.location.map(|path| format!("location: {path}\r\n")).unwrap_or_default();
        write!(
            to,
            "HTTP/1.1 {}\r\ncontent-type: {}\r\ncontent-length: {}\r\n{location}connection: close\r\n\r\n{}",
            self.status,
            self.content_type,
            self.body.len(),
            self.body
        )?;
        to.flush()
    }
}

/// A field of a form (`application/x-www-form-urlencoded`); empty if it is not there.
pub fn form_field(body: &str, name: &str) -> String {
    body.split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| decode(value))
        .unwrap_or_default()
}

fn decode(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = [bytes.next(), bytes.next()].map(|d| d.and_then(|d| char::from(d).to_digit(16)));
                if let [Some(high), Some(low)] = digits {
                    out.push((high * 16 + low) as u8);
                }
            }
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_post_is_read_with_its_body() {
        let raw = "POST /x?y=1 HTTP/1.1\r\nContent-Length: 7\r\n\r\nname=me and what follows";
        let request = read(raw.as_bytes()).unwrap();
        assert_eq!(
            (request.method.as_str(), request.path.as_str(), request.body.as_str()),
            ("POST", "/x", "name=me")
        );
    }

    #[test]
    fn what_is_too_long_or_cut_off_is_refused() {
        let long_head = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(9000));
        assert!(matches!(read(long_head.as_bytes()), Err(Error::Bad(_))));
        assert!(matches!(
            read("POST / HTTP/1.1\r\ncontent-length: 9999\r\n\r\n".as_bytes()),
            Err(Error::Bad(_))
        ));
        assert!(matches!(read("GET / HTTP/1.1\r\nhost".as_bytes()), Err(Error::Bad(_))));
        assert!(matches!(
            read("POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nab".as_bytes()),
            Err(Error::Io(_))
        ));
        assert!(matches!(read("".as_bytes()), Err(Error::Io(_))));
    }

    #[test]
    fn form_fields_are_decoded() {
        assert_eq!(form_field("name=a+b&text=%C3%BC%3c%zz!", "text"), "ü<!");
        assert_eq!(form_field("name=a+b", "name"), "a b");
        assert_eq!(form_field("name", "name"), "");
    }
}
