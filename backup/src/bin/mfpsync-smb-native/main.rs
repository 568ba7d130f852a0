//! The helper program that speaks SMB by a library in Rust, for systems without libsmbclient.
//!
//! The only place where that library is named; what this program shares with other helpers is in
//! [`mfpsync_backup::smb::helper`].

mod failure;
mod session;

use std::process::ExitCode;

use mfpsync_backup::smb::helper::{self, About};

const ABOUT: About = About {
    help: "\
mfpsync-smb-native: reaches an SMB share for mfpsyncd, which starts it and speaks to it on standard input and
output. It is of no use by hand.

  --version  print the version
  --help     print this

Licensed under Apache-2.0 or MIT. It needs no libsmbclient.
",
    version: concat!("mfpsync-smb-native ", env!("CARGO_PKG_VERSION"), " (Apache-2.0 OR MIT)\n"),
};

fn main() -> ExitCode {
    helper::run(&ABOUT, session::connect)
}
