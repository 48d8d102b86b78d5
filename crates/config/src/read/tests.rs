use std::fmt::Write as _;

use super::*;
use crate::PathStep;
use crate::node::Key;

fn one(text: &str) -> Node {
    let (mut documents, errors) = yaml(text);
    assert!(errors.is_empty(), "{errors:?}");
    documents.pop().unwrap()
}

fn first_error(text: &str) -> String {
    yaml(text).1.swap_remove(0).message
}

#[test]
fn scalars_are_those_of_yaml_1_2() {
    for (text, node) in [
        ("true", Node::Bool(true)),
        ("FALSE", Node::Bool(false)),
        ("~", Node::Null),
        ("null", Node::Null),
        ("0x1f", Node::Int(31)),
        ("0o17", Node::Int(15)),
        ("+5", Node::Int(5)),
        ("-5", Node::Int(-5)),
        ("18446744073709551615", Node::Int(u64::MAX.into())),
    ] {
        assert_eq!(one(text), node, "{text}");
    }
    for text in ["yes", "on", "017", "1_000", "1.2.3.4", "'5'", "\"true\"", "2024-01-02"] {
        assert!(matches!(one(text), Node::Str(_)), "{text}");
    }
}

#[test]
fn floats_keep_the_text_they_are_written_in() {
    let node = one("- 1.10\n- a: {b: [1e3, 1.50]}\n- 2.0\n");
    let text = |node: &Node| match node {
        Node::Float(float) => float.text.to_string(),
        node => format!("{node:?}"),
    };
    let path = |steps: &str| crate::Path::from(steps);
    for (at, expected) in [
        ("[0]", "1.10"),
        ("[1].a.b[0]", "1e3"),
        ("[1].a.b[1]", "1.50"),
        ("[2]", "2.0"),
    ] {
        assert_eq!(text(node.descend(path(at).steps()).unwrap()), expected);
    }
}

#[test]
fn keys_keep_their_order_and_kind() {
    let Node::Map(entries) = one("{b: 1, a-B: 2, 3: x, true: y}") else {
        panic!("a map")
    };
    let keys: Vec<_> = entries.iter().map(|(key, _)| (&*key.text, key.is_string)).collect();
    assert_eq!(keys, [("b", true), ("a-B", true), ("3", false), ("true", false)]);
    assert_eq!(entries[1].0, Key::string("a-B"));
}

#[test]
fn documents_up_to_a_broken_one_are_read() {
    let (documents, errors) = yaml("a: 1\n---\nb: 2\n---\n[");
    assert_eq!((documents.len(), errors.len()), (2, 1));
    assert!(yaml("").0.is_empty());
    assert_eq!(yaml("---\n").0, [Node::Null]);
    assert_eq!(yaml("# nothing\n").0.len(), 0);
}

#[test]
fn every_duplicate_key_is_told_at_its_place() {
    let (documents, errors) = yaml("a: 1\nb: {c: 1, c: 2}\na: 3\n");
    let told: Vec<_> = errors
        .iter()
        .map(|error| (error.mark.map(|mark| mark.line), error.message.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (Some(2), "the key `c` is given twice in this map"),
            (Some(3), "the key `a` is given twice in this map"),
        ]
    );
    assert_eq!(documents.len(), 1);
}

#[test]
fn aliases_that_multiply_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        let _ = writeln!(bomb, "a{level}: &a{level} [{}]", [below.as_str(); 10].join(", "));
    }
    let error = first_error(&bomb);
    assert!(
        error.contains("repetition limit") || error.contains("multiply"),
        "{error}"
    );
    // Few jumps, each to something large: what serde_yaml's own limit lets through.
    let large = ["x"; 20_000].join(", ");
    let jumps = ["*a"; 500].join(", ");
    assert_eq!(
        first_error(&format!("a: &a [{large}]\nb: [{jumps}]\n")),
        "the aliases of this document multiply too much"
    );
}

#[test]
fn deep_nesting_is_refused() {
    assert!(first_error(&"[".repeat(100_000)).contains("recursion limit"));
    assert!(first_error(&format!("{}{}", "[".repeat(1000), "]".repeat(1000))).contains("recursion limit"));
    assert_eq!(yaml(&format!("{}{}", "[".repeat(100), "]".repeat(100))).1.len(), 0);
}

#[test]
fn a_large_document_is_read_in_one_go() {
    let mut users = "users:\n".to_owned();
    for index in 0..20_000 {
        let _ = writeln!(users, "  - {{name: user{index}, token: secret, limit: 1.5}}");
    }
    let node = one(&users);
    assert_eq!(
        node.descend(crate::Path::from("users[19999].name").steps()),
        Some(&Node::Str("user19999".into()))
    );
}

#[test]
fn tags_and_odd_keys_are_refused() {
    assert_eq!(first_error("a: !x y"), "tags (`!word`) mean nothing here");
    assert!(first_error("? [a]\n: b").contains("a key that is a string or a number"));
}

#[test]
fn places_are_found_again() {
    let text = "a:\n  - x\n  - b-C: {d: 5}\n---\ne: ~\nf:\n";
    let find = |document, path: &str, on_key| {
        let path = crate::Path::from(path);
        locate(
            text,
            document,
            Spot {
                path: path.steps(),
                on_key,
            },
        )
        .map(|mark| (mark.line, mark.column))
    };
    assert_eq!(find(0, "", false), Some((1, 1)));
    assert_eq!(find(0, "a[0]", false), Some((2, 5)));
    assert_eq!(find(0, "a[1].b-C.d", false), Some((3, 14)));
    assert_eq!(find(0, "a[1].b-C.d", true), Some((3, 11)));
    assert_eq!(find(1, "e", false), Some((5, 4)));
    assert_eq!(find(1, "f", true), Some((6, 1)));
    assert_eq!(find(0, "a[2]", false), None);
    assert_eq!(find(2, "e", false), None);
    assert_eq!(
        locate(
            text,
            0,
            Spot {
                path: &[PathStep::Index(0)],
                on_key: false
            }
        ),
        None
    );
}

#[test]
fn json_is_read_into_the_same_nodes() {
    assert_eq!(
        json(r#"{"a": [1, "x", null, true]}"#).unwrap(),
        one("{a: [1, x, ~, true]}")
    );
    assert!(matches!(json("1.5"), Ok(Node::Float(float)) if &*float.text == "1.5"));
    for bad in ["", "{", "[1,]", "{} x", r#"{"a": 1, "a": 2}"#] {
        assert!(json(bad).is_err(), "{bad}");
    }
}
