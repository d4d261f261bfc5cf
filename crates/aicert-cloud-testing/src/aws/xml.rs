//! Changing answers.

use std::ops::Range;

use roxmltree::{Document, Node};

/// Changes to a text, each in a place of its own.
#[derive(Default)]
pub(crate) struct Edits(Vec<(Range<usize>, String)>);

impl Edits {
    pub(crate) fn replace(&mut self, node: Node<'_, '_>, with: impl Into<String>) {
        self.0.push((node.range(), with.into()));
    }

    /// Puts something at the end of an element that has an end.
    pub(crate) fn append(&mut self, node: Node<'_, '_>, text: &str) {
        let end = node.range().end - format!("</{}>", node.tag_name().name()).len();
        self.0.push((end..end, text.into()));
    }

    /// Those that are not inside of a place.
    pub(crate) fn without(mut self, place: &Range<usize>) -> Self {
        self.0
            .retain(|(range, _)| !(place.start <= range.start && range.end <= place.end));
        self
    }

    pub(crate) fn apply(mut self, text: &str) -> String {
        self.0
            .sort_by_key(|(range, _)| std::cmp::Reverse((range.start, range.end)));
        let mut text = text.to_owned();
        for (range, with) in self.0 {
            text.replace_range(range, &with);
        }
        text
    }
}

/// The items of a set, by the name of the set: `instancesSet`, `imagesSet`.
pub(crate) fn items<'a, 'input>(document: &'a Document<'input>, set: &'a str) -> Vec<Node<'a, 'input>> {
    document
        .descendants()
        .filter(|node| node.tag_name().name() == set)
        .flat_map(|set| set.children().filter(|child| child.tag_name().name() == "item"))
        .collect()
}

pub(crate) fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| child.tag_name().name() == name)
}

pub(crate) fn text<'a>(node: Node<'a, '_>, name: &str) -> &'a str {
    child(node, name)
        .and_then(|child| child.text())
        .unwrap_or_default()
}

/// An error as EC2 answers it.
pub(crate) fn error(code: &str, message: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error>\
         </Errors><RequestID>00000000-0000-0000-0000-000000000000</RequestID></Response>"
    )
}
