//! Entries that were never in such a file, or no longer fit the one they came from.

use mfpsync_addressbook::csv::{self, Header, MAX_CELL_BYTES, MAX_ROWS, Version, WriteOptions};
use mfpsync_addressbook::{Entry, LeftOut, LeftOutKind, Value, WriteError};

use super::{SAMPLES, entry, group, read, sample, sample_text};

fn options(columns: &[&str]) -> WriteOptions {
    let mut options = WriteOptions::new(Header::address_list(Version::V2, ""));
    options.columns = columns.iter().map(|name| (*name).to_owned()).collect();
    options.layout.trailing_comma = false;
    options
}

/// The rows below the column names.
fn rows(entries: &[Entry], options: &WriteOptions) -> (Vec<String>, Vec<LeftOut>) {
    let (bytes, left_out) = csv::write(entries, options).unwrap();
    csv::read(&bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let rows = text.split_once("\r\n\r\n").unwrap().1;
    (rows.lines().skip(1).map(str::to_owned).collect(), left_out)
}

#[test]
fn default_options_are_what_machines_write() {
    let headers = [Header::address_list(Version::V2, ""), Header::one_touch(Version::V3, "")];
    for (name, header) in SAMPLES.into_iter().zip(headers) {
        let mut options = WriteOptions::new(header);
        options.layout.bom = name == "one-touch.csv";
        let (book, _) = read(sample(name));
        assert!(csv::write(&book.entries, &options).unwrap().0 == sample(name), "{name}");
    }
    let named = WriteOptions::new(Header::address_list(Version::V3, "Tokyo"));
    let (book, _) = read(csv::write(&[], &named).unwrap().0);
    assert_eq!(book.header.list_name().as_deref(), Some("Tokyo"));
    assert!(sample_text("one-touch.csv").contains(&book.columns.join(",")));
}

#[test]
fn entries_from_elsewhere_get_the_cells_that_machines_expect() {
    let options = options(&["objectclass", "cn", "subdbid", "enablepartial", "accesscode", "uuid"]);
    let ann = entry("e0c99f3e-dae3-4f9c-9b50-7a368eac871f", &[("class", "folder"), ("name", "Ann")]);
    let bob = entry("b0b", &[("class", "email"), ("csv.subdbid", "5")]);
    let (rows, left_out) = rows(&[ann, bob], &options);
    assert_eq!(
        rows,
        ["remotefilesystem,Ann,1,off,0,e0c99f3e-dae3-4f9c-9b50-7a368eac871f", "email,,5,off,0,"]
    );
    assert_eq!(left_out, []);
}

#[test]
fn fields_without_a_column_are_told() {
    let fields = [("class", "email"), ("ldif.uid", "ann"), ("csv.pwd", "x"), ("mail", "ann@example.com")];
    let (_, left_out) = rows(&[entry("a", &fields)], &options(&["objectclass", "pwd"]));
    let fields: Vec<_> = left_out.iter().map(|left_out| (left_out.field.as_str(), &left_out.what)).collect();
    let what = &LeftOutKind::NoColumn;
    assert_eq!(fields, [("csv.pwd", what), ("ldif.uid", what), ("mail", what)]);
}

#[test]
fn members_without_a_number_are_given_a_free_one() {
    let options = options(&["objectclass", "member", "indxid"]);
    let a = entry("a", &[("class", "email"), ("index", "0300")]);
    let b = entry("b", &[("class", "email")]);
    let c = entry("c", &[("class", "email")]);
    let (rows, left_out) = rows(&[group("g", &["a", "b", "gone"]), a, b, c], &options);
    assert_eq!(rows, ["groupfids,\"300,301\",", "email,,0300", "email,,301", "email,,"]);
    let what = LeftOutKind::UnknownMembers { count: 1 };
    assert_eq!(left_out, [LeftOut { entry: 0, field: "members".to_owned(), what }]);
}

#[test]
fn entries_of_two_machines_with_one_number_are_both_written() {
    let options = options(&["objectclass", "member", "indxid"]);
    let a = entry("a", &[("class", "email"), ("index", "201")]);
    let b = entry("b", &[("class", "fax"), ("index", "201")]);
    let (rows, left_out) = rows(&[a, b, group("g", &["b"])], &options);
    assert_eq!(rows, ["email,,201", "g3fax,,202", "groupfids,202,"]);
    assert_eq!(left_out, [LeftOut { entry: 1, field: "index".to_owned(), what: LeftOutKind::IndexReplaced }]);
}

#[test]
fn who_inherits_the_number_of_a_lost_member_does_not_join_the_group() {
    let options = options(&["objectclass", "member", "indxid"]);
    let mut group = group("g", &[]);
    group.fields.insert("csv.member".to_owned(), Value::Text("201,999".to_owned()));
    let (rows, left_out) = rows(&[group, entry("a", &[("class", "email"), ("index", "201")])], &options);
    assert_eq!(rows, ["groupfids,999,", "email,,201"]);
    let what = LeftOutKind::UnknownMembers { count: 1 };
    assert_eq!(left_out, [LeftOut { entry: 0, field: "csv.member".to_owned(), what }]);
}

#[test]
fn an_edited_class_wins_over_the_word_it_came_with() {
    let fax = entry("a", &[("class", "fax"), ("csv.objectclass", "fax")]);
    let mail = entry("b", &[("class", "email"), ("csv.objectclass", "fax")]);
    assert_eq!(rows(&[fax, mail], &options(&["objectclass"])).0, ["fax", "email"]);
}

#[test]
fn what_could_not_be_read_back_is_refused() {
    let sound = options(&["objectclass", "cn", "member", "indxid"]);
    let refused = |entries: &[Entry]| csv::write(entries, &sound).unwrap_err();
    let mail = |fields: &[(&str, &str)]| entry("a", &[&[("class", "email")], fields].concat());

    assert_eq!(refused(&[entry("a", &[("name", "x")])]), WriteError::NoClass { entry: 0 });
    assert_eq!(refused(&[mail(&[]), mail(&[])]), WriteError::DuplicateId { entry: 1, first: 0 });
    assert_eq!(refused(&[mail(&[("index", "x")])]), WriteError::NotANumber { entry: 0 });
    let wrong = |field: &str| WriteError::WrongType { entry: 0, field: field.to_owned() };
    assert_eq!(refused(&[mail(&[("members", "x")])]), wrong("members"));
    for field in ["class", "name", "index"] {
        let mut entry = mail(&[]);
        entry.fields.insert(field.to_owned(), Value::Set(["x".to_owned()].into()));
        assert_eq!(refused(&[entry]), wrong(field));
    }
    let long = "x".repeat(MAX_CELL_BYTES + 1);
    let field = "name".to_owned();
    let limit_bytes = MAX_CELL_BYTES;
    assert_eq!(
        refused(&[mail(&[("name", &long)])]),
        WriteError::CellTooLarge { entry: 0, field, limit_bytes }
    );
    let many: Vec<Entry> = (0..=MAX_ROWS).map(|at| entry(&at.to_string(), &[("class", "email")])).collect();
    assert_eq!(refused(&many), WriteError::TooManyEntries { limit: MAX_ROWS });
    let big: Vec<Entry> =
        (0..1025).map(|at| entry(&at.to_string(), &[("class", "email"), ("name", &long[1..])])).collect();
    assert!(matches!(refused(&big), WriteError::FileTooLarge { .. }));
}

#[test]
fn options_that_could_not_be_read_back_are_refused() {
    for columns in
        [&["cn"][..], &[], &["objectclass", "cn", "CN "], &["objectclass", ""], &["#x", "objectclass"]]
    {
        assert_eq!(csv::write(&[], &options(columns)), Err(WriteError::BadColumns), "{columns:?}");
    }
    let mut separated = options(&["objectclass"]);
    separated.layout.member_separator = ':';
    assert_eq!(csv::write(&[], &separated), Err(WriteError::BadMemberSeparator));
    for line in ["objectclass", "# a\nb"] {
        let mut options = options(&["objectclass"]);
        options.header.lines.push(line.to_owned());
        assert_eq!(csv::write(&[], &options), Err(WriteError::BadHeaderLine { line: 4 }));
    }
}
