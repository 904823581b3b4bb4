//! Images whose names are templates.

use std::collections::BTreeMap;

use crate::diagnostic::Rule;
use crate::node::Node;
use crate::report::{Place, Report};
use crate::template::{ImageTemplate, Template, is_template};

/// The templates among the images, by service.
pub(crate) fn templates(tree: &Node, report: &mut Report) -> BTreeMap<String, ImageTemplate> {
    let mut templates = BTreeMap::new();
    let report = &mut report.at("services");
    for (name, entry) in tree.entries_of("services") {
        let Some(node) = entry.node.get("image") else {
            continue;
        };
        let Some(text) = node.as_text().filter(|text| is_template(text)) else {
            continue;
        };
        let report = &mut report.at(name);
        let report = &mut report.at("image");
        match Template::parse(text) {
            Ok(template) => {
                let place = report.blank(Rule::Refused, node.span);
                templates.insert(name.clone(), ImageTemplate { template, place });
            }
            Err(error) => report.refuse(node.span, error.to_string(), error.hint),
        }
    }
    templates
}
