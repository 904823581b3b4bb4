//! Waiting for SIGTERM or SIGINT. The standard library has no signals and process 1 gets none by
//! default, so this is the one place with unsafe code: a handler that writes a byte into a socket
//! pair somebody waits on.

use std::io;
use std::io::Read;
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering;

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// Where the handler writes; -1 before it is installed.
static WRITE_END: AtomicI32 = AtomicI32::new(-1);

#[expect(unsafe_code, reason = "the C library's functions")]
unsafe extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn write(fd: i32, buffer: *const u8, count: usize) -> isize;
}

#[expect(unsafe_code, reason = "calls write(2)")]
extern "C" fn on_signal(_number: i32) {
    // SAFETY: write(2) is async-signal-safe, the buffer is a live byte, and a bad descriptor only
    // gives an error.
    let _ = unsafe { write(WRITE_END.load(Ordering::Relaxed), [1].as_ptr(), 1) };
}

/// Becomes readable when the process should end.
pub struct Termination(UnixStream);

impl Termination {
    /// From now on signals no longer end the process by themselves.
    #[expect(unsafe_code, reason = "calls signal(2)")]
    pub fn install() -> io::Result<Self> {
        let (read_end, write_end) = UnixStream::pair()?;
        write_end.set_nonblocking(true)?;
        WRITE_END.store(write_end.into_raw_fd(), Ordering::Relaxed);
        for number in [SIGTERM, SIGINT] {
            // SAFETY: the handler does nothing but call an async-signal-safe function.
            unsafe { signal(number, on_signal) };
        }
        Ok(Self(read_end))
    }

    /// Blocks until a signal comes.
    pub fn wait(mut self) {
        let _ = self.0.read(&mut [0]);
    }
}
