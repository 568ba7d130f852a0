//! The helper program: one server, one account, one job; requests on standard input, answers on standard output.
//!
//! The only program of mfpsync that links libsmbclient, and the only place where it is named. The daemon
//! starts it for a job and ends it with SIGKILL, also in the middle of a call; it ends itself when the daemon
//! is gone. The password comes with the first request, never by arguments or environment. [`gate`] stands
//! between the library and the server, [`session`] does what is asked, [`confine`] is what the process gives
//! up before it begins.
//!
//! libsmbclient is free software under the GNU General Public License, version 3 or later. This program's own
//! source is under Apache-2.0 or MIT as the rest; the program linked with that library is distributed under
//! the terms of the GPL, version 3 or later. No other program of mfpsync is.

mod confine;
mod failure;
mod gate;
mod session;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use mfpsync_backup::smb::protocol::{Request, send};

use confine::Pipes;
use session::Session;
use zeroize::Zeroizing;

const HELP: &str = "\
mfpsync-smb: reaches an SMB share for mfpsyncd, which starts it and speaks to it on standard input and output.
It is of no use by hand.

  --version  print the version
  --help     print this

The source of mfpsync is licensed under Apache-2.0 or MIT. This program is linked with libsmbclient and
therefore comes under the terms of the GNU General Public License, version 3 or later, with no warranty.
";

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let text = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => return served(serve()),
        (Some("--version"), None) => {
            concat!("mfpsync-smb ", env!("CARGO_PKG_VERSION"), " (GPL-3.0-or-later)\n")
        }
        (Some("--help"), None) => HELP,
        _ => return ExitCode::from(2),
    };
    served(io::stdout().write_all(text.as_bytes()))
}

fn served(result: io::Result<()>) -> ExitCode {
    // Nobody reads what this process would say: whoever started it sees that it ended.
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Answers requests until there are none, or until one fails in such a way that the connection is of no more use.
fn serve() -> io::Result<()> {
    let Pipes { mut requests, mut answers } = confine::begin()?;
    // It holds the password.
    let first = Zeroizing::new(requests.next()?);
    let Ok(Request::Begin(target)) = Request::decode(&first) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    drop(first);
    let (client, gate, begun) = match session::connect(*target) {
        Ok(connected) => connected,
        Err(failure) => return send(&mut answers, &failure.answer().encode()),
    };
    send(&mut answers, &begun.answer().encode())?;
    let mut session = Session::new(&client, &gate, begun);
    loop {
        let body = requests.next()?;
        let request = Request::decode(&body).map_err(|_| io::ErrorKind::InvalidData)?;
        match session.answer(request) {
            Ok(answer) => send(&mut answers, &answer.encode())?,
            Err(failure) => {
                send(&mut answers, &failure.answer().encode())?;
                if failure.ends() {
                    return Ok(());
                }
            }
        }
    }
}
