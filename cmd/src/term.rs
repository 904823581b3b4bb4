//! The terminal: its raw mode and size, for `uc exec`, and whether its end is ignored.
#![expect(
    unsafe_code,
    reason = "termios, the window size and the signal actions have no safe interface in std"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, RawFd};

/// Raw mode until this is dropped: every key goes to the container, Ctrl-C too.
#[derive(Debug)]
pub(crate) struct RawMode {
    fd: RawFd,
    before: libc::termios,
}

impl RawMode {
    /// Switches the terminal on stdin to raw mode.
    pub(crate) fn enter() -> io::Result<Self> {
        let fd = io::stdin().as_raw_fd();
        let mut before = MaybeUninit::<libc::termios>::uninit();
        // SAFETY: `before` is a valid place for a termios; tcgetattr writes it whole when it gives
        // 0.
        if unsafe { libc::tcgetattr(fd, before.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: tcgetattr gave 0.
        let before = unsafe { before.assume_init() };
        let mut raw = before;
        // SAFETY: `raw` is a valid termios; cfmakeraw only changes its fields.
        unsafe { libc::cfmakeraw(&raw mut raw) };
        set(fd, &raw)?;
        Ok(Self { fd, before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal may no longer exist, and then nothing can be restored.
        _ = set(self.fd, &self.before);
    }
}

fn set(fd: RawFd, mode: &libc::termios) -> io::Result<()> {
    // SAFETY: `mode` points to a valid termios for the length of the call.
    match unsafe { libc::tcsetattr(fd, libc::TCSADRAIN, mode) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Columns and rows of the terminal on stdout. `None` without a terminal, or if its size is
/// unknown.
pub(crate) fn size() -> Option<(u32, u32)> {
    let mut size = MaybeUninit::<libc::winsize>::zeroed();
    // SAFETY: `size` is a valid place for a winsize, which TIOCGWINSZ writes.
    if unsafe {
        libc::ioctl(
            io::stdout().as_raw_fd(),
            libc::TIOCGWINSZ,
            size.as_mut_ptr(),
        )
    } != 0
    {
        return None;
    }
    // SAFETY: all-zero bytes are a valid winsize, and the kernel has written it since.
    let size = unsafe { size.assume_init() };
    (size.ws_col > 0 && size.ws_row > 0).then(|| (u32::from(size.ws_col), u32::from(size.ws_row)))
}

/// Whether this process ignores SIGHUP, as a program does that `nohup` started.
pub(crate) fn ignores_hang_up() -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action, sigaction only writes the current one to `action`, which is a
    // valid place for it.
    if unsafe { libc::sigaction(libc::SIGHUP, std::ptr::null(), action.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: all-zero bytes are a valid sigaction, and sigaction has written it since.
    let action = unsafe { action.assume_init() };
    action.sa_sigaction == libc::SIG_IGN
}
