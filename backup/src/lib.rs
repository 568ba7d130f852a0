//! Archives of the master database on a share: putting them there, proving them, keeping the right ones.
//!
//! Start with [`store`], what a share can do and what goes wrong with it, and [`layout`], what lies there; then
//! [`upload`], how an archive becomes one that exists. [`survey`] is what there is, [`retention`] decides which
//! archives may go, [`prune`] removes them. [`smb`] is what this library and the helper program `mfpsync-smb` say to
//! each other; that program alone links libsmbclient and speaks to a server.

mod calendar;
pub mod layout;
pub mod prune;
pub mod retention;
pub mod smb;
pub mod store;
pub mod survey;
pub mod upload;
