//! `extends`: a service on top of another one, of the same file or of another.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use uc_api::nearest;

use super::model::{Extended, Loader, Scope};
use crate::diagnostic::Rule;
use crate::environment::Environment;
use crate::merge;
use crate::node::{Map, Node, Span, Value};
use crate::report::Place;
use crate::reset::{self, Places};
use crate::schema::{self, Shape};

/// Most services in one chain: bounds recursion.
const MAX_CHAIN: usize = 100;

/// Services of one file, and what the file resets.
struct Services<'a> {
    file: &'a Path,
    map: &'a Map,
    places: &'a Places,
}

/// A service in a chain.
struct Link {
    file: PathBuf,
    service: String,
    /// Where it says what it extends.
    span: Span,
}

impl Link {
    fn is(&self, other: &Self) -> bool {
        (&self.file, &self.service) == (&other.file, &other.service)
    }
}

impl Loader<'_> {
    /// Puts every service of the document that extends another one on top of that.
    pub(super) fn extend(
        &mut self,
        document: &mut Node,
        file: &Path,
        places: &Places,
        scope: &Scope<'_>,
    ) {
        let Some(map) = document.map_of_mut("services") else {
            return;
        };
        if map
            .values()
            .all(|entry| entry.node.get("extends").is_none())
        {
            return;
        }
        // Another document may know other variables.
        self.extended.clear();
        let original = map.clone();
        let services = Services {
            file,
            map: &original,
            places,
        };
        let mut loader = self.at("services");
        for (name, entry) in map.iter_mut() {
            if entry.node.get("extends").is_none() {
                continue;
            }
            match loader
                .at(name)
                .extended(name, &services, &scope.variables, &mut Vec::new())
            {
                Some(node) => entry.node = node,
                // What it lacks for that reason makes no more errors.
                None => entry.node.value = Value::Broken,
            }
        }
    }

    /// A service with all that it takes over. `None`: why has been reported.
    fn extended(
        &mut self,
        name: &str,
        services: &Services<'_>,
        variables: &Environment,
        chain: &mut Vec<Link>,
    ) -> Option<Node> {
        let mut service = services.map.get(name)?.node.clone();
        let Value::Map(own) = &mut service.value else {
            return Some(service);
        };
        let Some(extends) = own.shift_remove("extends") else {
            return Some(service);
        };
        let base = extends.node.get("service");
        let Some((base_name, span)) =
            base.and_then(|node| Some((node.as_text()?.to_owned(), node.span)))
        else {
            let unreadable = base.map_or(&extends.node.value, |node| &node.value) == &Value::Broken;
            if !unreadable {
                self.report.invalid(
                    extends.key,
                    "`extends` needs `service`",
                    "add `service:`, the name of the service to extend",
                );
            }
            return None;
        };
        let link = Link {
            file: services.file.to_owned(),
            service: name.to_owned(),
            span,
        };
        if chain.iter().any(|known| known.is(&link)) || chain.len() >= MAX_CHAIN {
            let closing = chain.last().map_or(span, |last| last.span);
            chain.push(link);
            self.circle(chain, closing);
            return None;
        }
        chain.push(link);
        let base = match extends
            .node
            .get("file")
            .and_then(|node| Some((node.as_text()?.to_owned(), node.span)))
        {
            Some((path, span_of_file)) => {
                let file = PathBuf::from(path);
                let extended = self.extended_file(&file, span_of_file, variables)?;
                let empty = Map::new();
                let map = match extended.tree.get("services").map(|node| &node.value) {
                    Some(Value::Map(map)) => map,
                    _ => &empty,
                };
                let others = Services {
                    file: &file,
                    map,
                    places: &extended.places,
                };
                self.base(&base_name, span, &others, variables, chain)
            }
            None => self.base(&base_name, span, services, variables, chain),
        };
        let mut base = base?;
        if !self.afford(base.count(), span) {
            return None;
        }
        reset::apply(services.places, &mut base, &["services", name]);
        Some(merge::merge(base, service, Shape::Object(schema::SERVICE)))
    }

    fn base(
        &mut self,
        name: &str,
        span: Span,
        services: &Services<'_>,
        variables: &Environment,
        chain: &mut Vec<Link>,
    ) -> Option<Node> {
        if services.map.contains_key(name) {
            return self.extended(name, services, variables, chain);
        }
        let hint = nearest::did_you_mean(name, services.map.keys().map(String::as_str))
            .unwrap_or_else(|| {
                "name a service of the same file, or add `file:` with the file that it is in"
                    .to_owned()
            });
        let file = self.shown(services.file);
        self.report.error(
            Rule::Reference,
            span,
            format!("service `{name}`, which is extended here, not found in `{file}`"),
            hint,
        );
        None
    }

    fn circle(&mut self, chain: &[Link], span: Span) {
        let several = chain.iter().any(|link| link.file != chain[0].file);
        let shown = |link: &Link| {
            let file = if several {
                format!(" of `{}`", self.shown(&link.file))
            } else {
                String::new()
            };
            format!("`{}`{file}", link.service)
        };
        let message = if chain.len() > MAX_CHAIN {
            format!("services extend one another more than {MAX_CHAIN} levels deep")
        } else {
            let before_circle = |link: &&Link| chain.last().is_none_or(|last| !last.is(link));
            let circle: Vec<_> = chain.iter().skip_while(before_circle).map(shown).collect();
            let mut members = circle.clone();
            members.sort();
            members.dedup();
            if !self.circles.insert(members) {
                return;
            }
            format!(
                "services extend each other in a circle: {}",
                circle.join(" → ")
            )
        };
        self.report.error(
            Rule::Reference,
            span,
            message,
            "remove one of these `extends`",
        );
    }

    /// Another file's services: in long form, its paths from its own directory, nothing extended or
    /// included yet.
    fn extended_file(
        &mut self,
        path: &Path,
        span: Span,
        variables: &Environment,
    ) -> Option<Rc<Extended>> {
        if let Some(known) = self.extended.get(path) {
            return known.clone();
        }
        let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
        let loaded = self.read(path, span).map(|file| {
            let mut extended = Extended {
                tree: Node::new(Value::Map(Map::new()), span),
                places: Places::new(),
            };
            // Its problems are in it, not where it is named.
            let loader = &mut self.at_top();
            for document in file.documents {
                let (document, places) = loader.normal(document, &directory, variables);
                reset::apply(&places, &mut extended.tree, &[]);
                extended.tree = merge::merge(extended.tree, document, Shape::Object(schema::TOP));
                extended.places.extend(places);
            }
            Rc::new(extended)
        });
        self.extended.insert(path.to_owned(), loaded.clone());
        loaded
    }
}
