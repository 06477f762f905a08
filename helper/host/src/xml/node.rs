//! What is inside an element.

use roxmltree::Node;

pub(super) fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| child.has_tag_name(name))
}

pub(super) fn text_of<'a>(node: Node<'a, '_>, name: &str) -> &'a str {
    let text = child(node, name).and_then(|child| child.text());
    text.unwrap_or_default()
}

pub(super) fn attribute_of(node: Node<'_, '_>, name: &str, attribute: &str) -> String {
    let value = child(node, name).and_then(|child| child.attribute(attribute));
    value.unwrap_or_default().to_owned()
}
