//! What the daemon reads beside the network: control file, configuration, debug lines, recovery kits.

use std::path::Path;

use mfpsync_daemon::authority::Root;
use mfpsync_daemon::config::Config;
use mfpsync_daemon::control_file::Control;
use mfpsync_daemon::debug_socket::Command;
use mfpsync_daemon::kit::{self, WorkFactor};
use mfpsync_storage::model::{Epoch, GroupId};

use super::{file, root};

const PASSPHRASE: &str = "correct horse battery";

/// What is taken is what would be written.
pub(super) fn control(bytes: &[u8]) -> bool {
    Control::decode(bytes).is_ok_and(|control| {
        assert_eq!(control.encode(), bytes);
        true
    })
}

pub(super) fn control_samples() -> Vec<Vec<u8>> {
    let group = Control {
        group: Some(GroupId([7; 16])),
        epoch: Some(Epoch { number: 3, nonce: [9; 16] }),
        ..Control::default()
    };
    vec![Control::default().encode(), group.encode()]
}

pub(super) fn config(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| Config::parse(Path::new("fuzz.toml"), text).is_ok())
}

pub(super) fn config_samples() -> Vec<Vec<u8>> {
    vec![file(&root().join("deploy/config/sample.toml"))]
}

/// What is refused says why, in one line that can be sent back.
pub(super) fn debug(bytes: &[u8]) -> bool {
    let Ok(line) = std::str::from_utf8(bytes) else { return false };
    match Command::parse(line) {
        Ok(command) => !command.name().is_empty(),
        Err(why) => {
            assert!(!why.is_empty());
            false
        }
    }
}

pub(super) fn debug_samples() -> Vec<Vec<u8>> {
    let lines = ["state", "explain user/7/ui.language//language", "log-filter debug 3", "help", "quit\r"];
    lines.map(|line| line.as_bytes().to_vec()).to_vec()
}

pub(super) fn kit(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| kit::open(text, PASSPHRASE).is_ok())
}

pub(super) fn kit_samples() -> Vec<Vec<u8>> {
    let root = Root::generate(&ring::rand::SystemRandom::new()).unwrap();
    let quick = WorkFactor::new(1).unwrap();
    vec![kit::seal(&root, "Head office", PASSPHRASE, quick).unwrap().into_bytes()]
}
