//! `mfpsync-restore`: opens one archive for `mfpsyncd`, alone with it. Not for people.

use std::process::ExitCode;

fn main() -> ExitCode {
    mfpsync_backup::restore::helper_main()
}
