//! Archives of a group's master database: how one is made while the server serves, how it gets to a share and is
//! kept there, and how it becomes a database again. Never the wire protocol, never roles.
//!
//! Start with [`manifest`] for what an archive is known by, then [`archive`] (making one) and [`restore`]
//! (proving one, and beginning a reign over what it holds).
//!
//! For shares start with [`store`], what a share can do and what goes wrong with it, and [`layout`], what lies there;
//! then [`upload`], how an archive becomes one that exists. [`survey`] is what there is, [`retention`] decides which
//! archives may go, [`prune`] removes them. [`smb`] is what this library and its helper programs say to each other:
//! `mfpsync-smb`, which alone links libsmbclient, or `mfpsync-smb-native`; they alone speak to a server.

pub mod archive;
mod calendar;
#[cfg(test)]
#[path = "../../storage/tests/proof/frozen.rs"]
mod frozen;
pub mod layout;
pub mod manifest;
pub mod prune;
pub mod restore;
pub mod retention;
pub mod smb;
pub mod store;
pub mod survey;
pub mod upload;
