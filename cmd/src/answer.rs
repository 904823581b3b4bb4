//! Answers of a daemon. Every message in a message can be missing from what arrives, so the parts
//! without which an answer makes no sense are checked here, and an error names the missing one.

use crate::error::{CliError, CliResult};

/// A part of an answer.
pub(crate) trait Required<T> {
    /// The part, or an error if it is missing. `part` has its article: `a machine`.
    fn required(self, part: &str) -> CliResult<T>;
}

impl<T> Required<T> for Option<T> {
    fn required(self, part: &str) -> CliResult<T> {
        self.ok_or_else(|| {
            CliError::failed(format!("the daemon returned an answer without {part}"))
                .hint("compare the versions of uc and of the daemon: `uc version`")
        })
    }
}

/// The entries of a listing, each with the part that it must have.
pub(crate) fn with_part<E, T>(
    entries: Vec<E>,
    part: &str,
    take: impl Fn(&mut E) -> Option<T>,
) -> CliResult<Vec<(T, E)>> {
    entries
        .into_iter()
        .map(|mut entry| Ok((take(&mut entry).required(part)?, entry)))
        .collect()
}

#[cfg(test)]
mod tests {
    use uc_api::v1::{MachineRecord, MachineStatus};

    use super::*;

    #[test]
    fn listing_with_an_incomplete_entry_is_an_error() {
        let complete = MachineStatus {
            machine: Some(MachineRecord::default()),
            ..Default::default()
        };
        let take = |status: &mut MachineStatus| status.machine.take();
        assert_eq!(
            with_part(vec![complete.clone()], "a machine", take)
                .unwrap()
                .len(),
            1
        );
        let error = with_part(vec![complete, MachineStatus::default()], "a machine", take);
        assert_eq!(
            error.unwrap_err().message,
            "the daemon returned an answer without a machine"
        );
    }
}
