//! Log-in: accounts lock, so nothing is tried twice.

use anyhow::Result;
use mfpsync_backup::smb::{Secret, Target};
use mfpsync_backup::store::Kind;
use mfpsync_tests::ShareServer;

use crate::archive::{Bytes, id, upload};
use crate::{connect, kind};

#[test]
fn a_log_in_that_is_refused_is_one_attempt() -> Result<()> {
    let server = ShareServer::default().start()?;
    let good = server.target("backup")?;
    let wrong = Target { password: Secret::new("another".to_owned()), ..good.clone() };
    let unknown = Target { user: "nobody-of-that-name".to_owned(), ..good.clone() };
    for (attempts, target) in [(1, wrong), (2, unknown)] {
        // A whole job, which would try again what may be tried again.
        assert_eq!(kind(upload(&server.store(target)?, id(1), &mut Bytes::new(9))), Some(Kind::Auth));
        assert_eq!(server.log_ins()?, attempts);
    }
    server.disable_user()?;
    assert_eq!(kind(upload(&server.store(good)?, id(1), &mut Bytes::new(9))), Some(Kind::Auth));
    assert_eq!(server.log_ins()?, 3);
    Ok(())
}

#[test]
fn a_password_that_was_changed_ends_the_next_job_only() -> Result<()> {
    let server = ShareServer::default().start()?;
    let store = server.store(server.target("backup")?)?;
    upload(&store, id(1), &mut Bytes::new(9))?;
    let open = &mut *connect(&store)?;
    server.set_password("changed since")?;
    assert_eq!(kind(upload(&store, id(2), &mut Bytes::new(9))), Some(Kind::Auth));
    assert_eq!(open.list()?.len(), 2);
    let new = Target { password: Secret::new("changed since".to_owned()), ..server.target("backup")? };
    upload(&server.store(new)?, id(2), &mut Bytes::new(9))?;
    assert_eq!(open.list()?.len(), 4);
    Ok(())
}
