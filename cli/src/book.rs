//! Address books in and out of the group: files through the crate `addressbook`, items through the
//! local API.
//!
//! `entry` translates between the two vocabularies, `plan` compares (pure), `layout` keeps what a file
//! looks like beside its entries (pure), `import` and `export` do the asking. The commands and the demo
//! call these; no file format is known here.

use mfpsync_proto::local::ItemKey;

pub(crate) mod entry;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod layout;
mod meeting;
pub(crate) mod plan;

/// Where the entries of one book live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) scope: String,
    pub(crate) kind: String,
}

impl Target {
    /// The scope's own address kind, unless another is named.
    ///
    /// # Errors
    /// A sentence when the scope has no address kind of its own.
    pub(crate) fn new(scope: &str, kind: Option<&str>) -> Result<Self, String> {
        let kind = match (kind, scope.split('/').next()) {
            (Some(kind), _) => kind,
            (None, Some("shared")) => "address.shared",
            (None, Some("user")) => "address.personal",
            (None, Some("usergroup")) => "address.group",
            (None, _) => {
                return Err(format!("scope `{scope}` has no address list of its own; name a --kind"));
            }
        };
        Ok(Self { scope: scope.to_owned(), kind: kind.to_owned() })
    }

    pub(crate) fn key(&self, id: &str) -> ItemKey {
        ItemKey {
            scope: self.scope.clone(),
            kind: self.kind.clone(),
            device: String::new(),
            id: id.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scope_has_its_address_kind() {
        for (scope, kind) in [
            ("shared", "address.shared"),
            ("user/alice", "address.personal"),
            ("usergroup/sales", "address.group"),
        ] {
            assert_eq!(Target::new(scope, None).unwrap().kind, kind);
        }
        assert_eq!(Target::new("shared", Some("x.y")).unwrap().kind, "x.y");
        assert!(Target::new("device/00", None).unwrap_err().contains("--kind"));
    }
}
