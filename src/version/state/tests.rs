use proptest::prelude::*;

use super::*;
use crate::ErrorKind;
use crate::version::edit::tests::edit;
use crate::version::fixture::{add, create, meta, store, table_numbers};

fn fresh() -> State {
    State::new(7, Wal::On, 8)
}

fn after(edits: &[Vec<Change>]) -> Result<State> {
    let (_env, tables) = store();
    let mut state = fresh();
    for changes in edits {
        state = state.apply(&VersionEdit::new(changes.clone()), &tables)?;
    }
    let again = State::nothing().apply(&state.to_edit(), &tables).unwrap();
    assert_eq!(again.to_edit(), state.to_edit());
    Ok(state)
}

fn refused(edits: &[Vec<Change>], why: &str) {
    let error = after(edits).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.to_string().contains(why), "{error}");
}

#[test]
fn runs_and_levels_are_put_in_order() {
    let state = after(&[
        vec![create(0, "a"), create(3, "b")],
        vec![
            add(0, 0, 5, meta(5, "a", "m", 1, 9)),
            add(0, 0, 5, meta(4, "n", "z", 2, 9)),
        ],
        vec![
            add(0, 0, 9, meta(9, "a", "z", 10, 12)),
            add(0, 6, 0, meta(2, "c", "c", 0, 0)),
        ],
        vec![
            add(3, 1, 0, meta(7, "q", "r", 3, 3)),
            add(3, 1, 0, meta(8, "a", "b", 3, 3)),
            add(3, 1, 7, meta(6, "q", "r", 4, 4)),
            add(3, 1, 2, meta(3, "b", "s", 0, 3)),
        ],
    ])
    .unwrap();
    assert_eq!(table_numbers(&state, 0), "0: [9] [5 4]  6: [2]");
    assert_eq!(table_numbers(&state, 3), "1: [6] [3] [8 7]");
    assert_eq!((state.next_keyspace, state.next_file), (4, 10));
    assert_eq!(state.last_seqno, SeqNo(12));
}

#[test]
fn tables_that_stay_or_move_are_the_same_objects() {
    let (_env, tables) = store();
    let start = VersionEdit::new(vec![
        create(0, "a"),
        add(0, 0, 1, meta(1, "a", "b", 1, 2)),
        add(0, 0, 2, meta(2, "a", "b", 3, 4)),
        add(0, 1, 0, meta(3, "x", "y", 1, 1)),
    ]);
    let before = fresh().apply(&start, &tables).unwrap();
    let edit = VersionEdit::new(vec![
        Change::RemoveTable {
            keyspace: 0,
            number: 1,
        },
        Change::RemoveTable {
            keyspace: 0,
            number: 2,
        },
        add(0, 1, 0, meta(1, "a", "b", 1, 2)),
    ]);
    let after = before.apply(&edit, &tables).unwrap();
    assert_eq!(table_numbers(&after, 0), "1: [1 3]");
    let one = |state: &State| {
        let version = &state.keyspaces[&0].version;
        Arc::clone(find(version, 1).unwrap())
    };
    assert!(Arc::ptr_eq(&one(&before), &one(&after)));
    let removed = before.removed_tables(&edit);
    assert_eq!(
        removed
            .iter()
            .map(|table| table.meta.number)
            .collect::<Vec<_>>(),
        [2]
    );
    let dropped = before.removed_tables(&VersionEdit::new(vec![Change::DropKeyspace { id: 0 }]));
    assert_eq!(dropped.len(), 3);
}

#[test]
fn a_keyspace_takes_the_place_of_another_in_one_edit() {
    let rebuilt = vec![
        create(0, "a"),
        create(1, "a.new"),
        add(1, 6, 0, meta(4, "a", "b", 0, 0)),
    ];
    let swap = vec![
        Change::DropKeyspace { id: 0 },
        Change::RenameKeyspace {
            id: 1,
            name: "a".into(),
        },
    ];
    let state = after(&[rebuilt.clone(), swap.clone()]).unwrap();
    assert_eq!(state.keyspaces.len(), 1);
    assert_eq!(state.keyspaces[&1].name, "a");
    refused(&[rebuilt, swap[1..].to_vec()], "both named \"a\"");
    refused(
        &[vec![
            create(0, "a"),
            Change::DropKeyspace { id: 0 },
            create(0, "b"),
        ]],
        "unused",
    );
}

#[test]
fn numbers_only_grow_but_flushed_must_not_shrink() {
    let flushed = |seqno| Change::Flushed {
        keyspace: 0,
        seqno: SeqNo(seqno),
    };
    let up = vec![
        create(0, "a"),
        flushed(5),
        Change::NextFile(9),
        Change::WalFirst(4),
    ];
    let down = vec![
        Change::LastSeqNo(SeqNo(2)),
        Change::NextFile(3),
        Change::WalFirst(1),
    ];
    let state = after(&[up.clone(), down]).unwrap();
    assert_eq!(
        (state.next_file, state.wal_first, state.last_seqno),
        (9, 4, SeqNo(5))
    );
    let state = after(&[up.clone(), vec![Change::WalId(77)]]).unwrap();
    assert_eq!((state.wal_id, state.wal_first), (77, 0));
    refused(&[up, vec![flushed(4)]], "before that up to 5");
}

#[test]
fn what_cannot_be_is_refused() {
    let with = |changes: &[Change]| vec![[&[create(0, "a")], changes].concat()];
    let table = |number, low, high| add(0, 1, 0, meta(number, low, high, 1, 2));
    refused(&with(&[create(1, "a")]), "both named");
    refused(&with(&[create(1, "")]), "0 bytes");
    refused(&with(&[create(u32::MAX, "b")]), "keyspace id");
    refused(
        &with(&[Change::DropKeyspace { id: 4 }]),
        "keyspace 4 does not exist",
    );
    refused(
        &with(&[Change::RemoveTable {
            keyspace: 0,
            number: 3,
        }]),
        "table 3",
    );
    refused(&with(&[Change::DbId(9)]), "store id");
    refused(&with(&[table(1, "a", "c"), table(2, "c", "d")]), "overlap");
    refused(&with(&[table(1, "c", "a")]), "not in order");
    refused(&with(&[table(1, "", "a")]), "keys");
    refused(&with(&[table(1, "a", "b"), table(1, "c", "d")]), "twice");
    refused(&with(&[add(0, 7, 0, meta(1, "a", "b", 1, 2))]), "level 7");
    refused(&with(&[add(0, 6, 1, meta(1, "a", "b", 1, 2))]), "run 1");
    refused(&with(&[add(0, 0, 1, meta(1, "a", "b", 2, 1))]), "sequence");
    let ages = [
        add(0, 0, 1, meta(1, "a", "b", 5, 7)),
        add(0, 0, 2, meta(2, "a", "b", 7, 9)),
    ];
    refused(&with(&ages), "older");
    let moved = [
        table(1, "a", "b"),
        Change::RemoveTable {
            keyspace: 0,
            number: 1,
        },
        table(1, "a", "c"),
    ];
    refused(&with(&moved), "is moved as");
}

proptest! {
    #[test]
    fn no_edit_panics(edits in proptest::collection::vec(edit(), 1..4)) {
        let (_env, tables) = store();
        let mut state = fresh();
        for edit in &edits {
            state.removed_tables(edit);
            if let Ok(next) = state.apply(edit, &tables) {
                state = next;
            }
        }
    }
}
