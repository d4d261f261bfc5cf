use proptest::prelude::*;

use super::{Document, DocumentError, Kind, Node, Place, Section, Value};

const DOCUMENT: Document = Document {
    name: "letter",
    file: "letter.yaml",
    twice: Some("remove one"),
    secret: |line| line.contains("hunter2"),
};

fn error(text: &str) -> DocumentError {
    DOCUMENT
        .read(text, |_, root| Some(format!("{root:?}")))
        .expect_err(text)
}

/// Asserts that a text is refused as a whole, there, with these words.
#[track_caller]
fn refused(text: &str, line: u32, column: u32, words: &str) {
    let error = error(text);
    let [problem] = error.problems() else {
        panic!("{text}\n{error}");
    };
    assert_eq!((problem.line(), problem.column()), (line, column), "{error}");
    assert!(error.to_string().contains(words), "{words:?} is not in: {error}");
}

fn kinds(root: &Node) -> Vec<(String, Kind)> {
    let Value::List(items) = &root.value else {
        panic!("{root:?}");
    };
    items
        .iter()
        .map(|item| match &item.value {
            Value::Scalar { text, kind } => (text.clone(), *kind),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn scalars_keep_the_text_of_the_file() {
    let text = "[1.10, 010, 0x1F, 1_0, true, no, 1e3, .inf, 'a b', \"1\"]";
    let read = DOCUMENT.read(text, |_, root| Some(kinds(root))).unwrap();
    let expected = [
        ("1.10", Kind::Number),
        ("010", Kind::Number),
        ("0x1F", Kind::Number),
        ("1_0", Kind::Number),
        ("true", Kind::Boolean),
        ("no", Kind::Text),
        ("1e3", Kind::Number),
        (".inf", Kind::Text),
        ("a b", Kind::Text),
        ("1", Kind::Text),
    ];
    assert_eq!(read, expected.map(|(text, kind)| (text.to_owned(), kind)));
}

#[test]
fn a_document_without_content_is_nothing() {
    for text in ["", "\n", "# a remark\n", "null", "~", "---\n"] {
        let empty = DOCUMENT.read(text, |_, root| Some(matches!(root.value, Value::Null)));
        assert_eq!(empty, Ok(true), "{text:?}");
    }
}

#[test]
fn what_would_expand_is_refused() {
    refused(
        "a: &x 1\nb: *x\n",
        1,
        7,
        "a letter has no anchors (`&`) and aliases (`*`)",
    );
    refused("a: *x\n", 1, 4, "a letter has no anchors");
    refused("base: {a: 1}\n<<: {b: 2}\n", 2, 1, "merge");
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let alias = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 9].join(", "));
    }
    refused(&bomb, 1, 9, "anchors");
}

#[test]
fn what_is_too_large_is_refused() {
    for text in [
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
        "- ".repeat(100_000),
        "? ".repeat(100_000),
    ] {
        assert_eq!(error(&text).problems().len(), 1);
    }
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let read = |depth| DOCUMENT.read(&nested(depth), |_, _| Some(()));
    assert_eq!(read(12), Ok(()));
    refused(&nested(13), 1, 13, "this is nested deeper than any letter");
    refused(
        &" ".repeat((1 << 20) + 1),
        1,
        1,
        "letter.yaml:1:1: the letter is larger than 1 MiB",
    );
}

#[test]
fn one_key_and_one_document_is_enough() {
    refused("a: 1\na: 2", 2, 1, "the key `a` stands twice");
    refused("a: 1\na: 2", 2, 1, "help: remove one");
    refused("a: 1\n---\nb: 1", 3, 1, "a letter is one document");
}

#[test]
fn lines_with_secrets_and_long_lines_are_not_shown() {
    for line in ["a: [x] hunter2".to_owned(), format!("a: [x] {}", "y".repeat(400))] {
        let said = error(&line).to_string();
        assert!(!said.contains('|'), "{said}");
    }
    let said = error("a: [\u{202e}x] y").to_string();
    assert!(said.contains("\n1 | a: [ x] y\n"), "{said}");
}

#[test]
fn misspelled_keys_are_not_called_missing() {
    let read = DOCUMENT.read("sendr: me\nbody: x", |problems, root| {
        let section = Section::of(problems, root, "a letter", &["sender", "body", "date"])?;
        assert!(!section.lacks("sender") && !section.lacks("body") && section.lacks("date"));
        Some(())
    });
    let said = read.unwrap_err().render("mine.yaml");
    assert_eq!(
        said,
        "mine.yaml:1:1: unknown key `sendr` in a letter
  |
1 | sendr: me
  | ^^^^^
  = help: did you mean `sender`?"
    );
}

/// Whoever reads a document and forgets to say what is wrong does not get a document that is right.
#[test]
fn an_error_always_says_something() {
    let read = DOCUMENT.read("a: 1", |_, _| None::<()>);
    assert_eq!(
        read.unwrap_err().problems()[0].message(),
        "the letter is incomplete"
    );
    let read = DOCUMENT.read("a: 1", |problems, _| {
        for _ in 0..1_000 {
            problems.note_plainly(Place::START, "it is wrong");
        }
        Some(())
    });
    assert_eq!(read.unwrap_err().problems().len(), 100);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[a-z:{}\\[\\]&*!|>'\"%@`#?, \n\r\t<~.0-9-]{0,80}") {
        let lines = crate::text::lines(&text).count();
        if let Err(error) = DOCUMENT.read(&text, |_, _| Some(())) {
            prop_assert!(error.problems().iter().all(|problem| (1..=lines).contains(&(problem.line() as usize))));
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
