//! Statements that run for every read, edit or answer seek an index; none scans a table that grows.
//! The statements here are those of the product, in their shape.

use mfpsync_storage::local::Local;
use mfpsync_storage::{Database, Inline};

fn plan<D: Database>(sql: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("empty.db");
    drop(Inline::<D>::open(&path, true).unwrap());
    let connection = rusqlite::Connection::open(&path).unwrap();
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let mut rows = statement.raw_query();
    let mut plan = String::new();
    while let Some(row) = rows.next().unwrap() {
        plan += &row.get::<_, String>(3).unwrap();
        plan.push('\n');
    }
    plan
}

#[test]
fn reads_of_items_seek_the_key_and_need_no_sorting() {
    let living = "SELECT scope, EXISTS (SELECT 1 FROM outbox_items WHERE item = items.number) FROM items
        WHERE coalesce(local_deleted, mirror_deleted) = 0";
    let shown = "(items.device = '' AND (items.mirror_deleted = 0 OR NOT EXISTS (
            SELECT 1 FROM items AS own WHERE own.scope = items.scope AND own.kind = items.kind
                AND own.device = (SELECT own_id FROM device) AND own.id = items.id
                AND coalesce(own.local_deleted, own.mirror_deleted) = 0))
        OR items.device = (SELECT own_id FROM device) AND NOT EXISTS (
            SELECT 1 FROM items AS shared WHERE shared.scope = items.scope AND shared.kind = items.kind
                AND shared.device = '' AND shared.id = items.id AND shared.mirror_deleted = 0))";
    let visible = format!("{living} AND {shown}");
    for (rest, seeks) in [
        (
            "AND scope = ? AND kind = ? AND device = ? AND id = ?",
            "(scope=? AND kind=? AND device=? AND id=?)",
        ),
        (
            "AND scope = ?1 AND (kind, device, id) > (?2, ?3, ?4) AND kind <= ?6
            ORDER BY kind, device, id LIMIT ?5",
            "(scope=? AND (kind,device,id)>(?,?,?) AND kind<?)",
        ),
        (
            "AND scope = ?1 AND (kind, device, id) > (?2, ?3, ?4) AND ?6 IS NULL
            ORDER BY kind, device, id LIMIT ?5",
            "(scope=? AND (kind,device,id)>(?,?,?))",
        ),
    ] {
        let plan = plan::<Local>(&format!("{visible} {rest}"));
        assert!(plan.contains(seeks), "{plan}");
        assert!(
            !plan.contains("SCAN items") && !plan.contains("SCAN own") && !plan.contains("TEMP B-TREE"),
            "{plan}"
        );
    }
}

#[test]
fn what_follows_a_batch_or_an_answer_seeks_an_index() {
    for (sql, index) in [
        ("SELECT scope FROM items WHERE settled_at <= ?", "items_settled_at"),
        ("SELECT min(settled_by) FROM items WHERE settled_by IS NOT NULL", "items_settled_by"),
        ("SELECT min(builds_on) FROM outbox", "outbox_builds_on"),
        ("DELETE FROM retained WHERE sequence <= ?", "retained_sequence"),
        ("SELECT operation FROM retained ORDER BY sequence LIMIT 1", "retained_sequence"),
        ("SELECT max(operation) FROM outbox_items WHERE item = ?", "PRIMARY KEY (item=?)"),
        ("DELETE FROM outbox_items WHERE item = ? AND operation = ?", "PRIMARY KEY (item=? AND operation=?)"),
    ] {
        let plan = plan::<Local>(sql);
        assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{sql}: {plan}");
    }
}
