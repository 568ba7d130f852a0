//! The users a database knows, counted from its items. Shared by both kinds of database.

use rusqlite::{Connection, params};

use crate::error::Result;
use crate::model::{Fields, Value};

/// The field in which any item of a user may carry the person's name.
pub const DISPLAY_NAME: &str = "display_name";

/// A user as the items tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The id: the scope without `user/`.
    pub id: String,
    /// The person's name, if an item carries one.
    pub display_name: Option<String>,
    /// How many items.
    pub items: u64,
    /// Their encoded bytes.
    pub bytes: u64,
}

/// How a database's `items` are read.
pub(crate) struct Columns<'a> {
    /// The fields that count.
    pub fields: &'a str,
    /// Whether an item lives.
    pub lives: &'a str,
}

/// At most `limit` users in order of their ids, behind the id `after`.
///
/// # Errors
/// The database's, or its reader's deadline.
pub(crate) fn users(
    connection: &Connection,
    columns: &Columns<'_>,
    after: &str,
    limit: u32,
) -> Result<Vec<User>> {
    let Columns { fields, lives } = columns;
    // The sign behind the slash ends what begins with `user/`.
    let sql = format!(
        "SELECT substr(scope, 6), count(*), sum(length({fields})) FROM items
         WHERE scope > ?1 AND scope < 'user0' AND {lives} GROUP BY scope ORDER BY scope LIMIT ?2"
    );
    let named = format!(
        "SELECT {fields} FROM items WHERE scope = ? AND {lives} AND instr({fields}, CAST('{DISPLAY_NAME}' AS BLOB))"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![format!("user/{after}"), limit])?;
    let mut names = connection.prepare_cached(&named)?;
    let mut users = Vec::new();
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        let mut found = names.query([format!("user/{id}")])?;
        let mut display_name = None;
        while let Some(row) = found.next()? {
            let fields = Fields::decode(row.get_ref(0)?.as_blob().unwrap_or_default())?;
            if let Some(Value::Text(name)) = fields.get(DISPLAY_NAME) {
                display_name = Some(name.clone());
                break;
            }
        }
        users.push(User {
            id,
            display_name,
            items: row.get::<_, i64>(1)? as u64,
            bytes: row.get::<_, i64>(2)? as u64,
        });
    }
    Ok(users)
}
