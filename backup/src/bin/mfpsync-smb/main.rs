//! The helper program that speaks SMB by libsmbclient.
//!
//! The only program of mfpsync that links that library, and the only place where it is named; what it shares with
//! other helpers is in [`mfpsync_backup::smb::helper`].
//!
//! libsmbclient is free software under the GNU General Public License, version 3 or later. This program's own
//! source is under Apache-2.0 or MIT as the rest; the program linked with that library is distributed under
//! the terms of the GPL, version 3 or later. No other program of mfpsync is.

mod session;

use std::process::ExitCode;

use mfpsync_backup::smb::helper::{self, About};

const ABOUT: About = About {
    help: "\
mfpsync-smb: reaches an SMB share for mfpsyncd, which starts it and speaks to it on standard input and output.
It is of no use by hand.

  --version  print the version
  --help     print this

The source of mfpsync is licensed under Apache-2.0 or MIT. This program is linked with libsmbclient and
therefore comes under the terms of the GNU General Public License, version 3 or later, with no warranty.
",
    version: concat!("mfpsync-smb ", env!("CARGO_PKG_VERSION"), " (GPL-3.0-or-later)\n"),
};

fn main() -> ExitCode {
    helper::run(&ABOUT, session::connect)
}
