//! The order that `depends_on` asks for, as layers, of which each is carried out to its end before
//! the next one begins. A service's layer is one more than the highest of what has to be there to
//! its end before it, and not below the layer of what only has to have begun.

use std::collections::BTreeMap;

use uc_api::nearest::nearest;

use super::error::PlanError;

/// What a service depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Edge<'a> {
    pub(super) on: &'a str,
    /// It has to be in the same layer or an earlier one. Otherwise only an earlier one is enough.
    pub(super) side_by_side: bool,
}

impl<'a> Edge<'a> {
    /// Of a service that needs all of `on` before it begins.
    pub(super) fn after(on: &'a str) -> Self {
        Self {
            on,
            side_by_side: false,
        }
    }
}

/// A service and what it depends on, all in one project.
pub(super) type Edges<'a> = BTreeMap<&'a str, Vec<Edge<'a>>>;

/// The layer of each service. A dependency that is not among the services is passed over if `known`
/// has it (it runs already), otherwise it is an error.
pub(super) fn layers<'a>(
    edges: &Edges<'a>,
    known: impl Fn(&str) -> bool,
) -> Result<BTreeMap<&'a str, u32>, PlanError> {
    for (service, dependencies) in edges {
        for Edge { on: dependency, .. } in dependencies {
            if !edges.contains_key(dependency) && !known(dependency) {
                return Err(PlanError::UnknownDependency {
                    service: (*service).to_owned(),
                    dependency: (*dependency).to_owned(),
                    nearest: nearest(
                        dependency,
                        edges.keys().copied().filter(|name| name != service),
                    )
                    .map(str::to_owned),
                });
            }
        }
    }
    let mut done = BTreeMap::new();
    // Not recursive: the depth is the length of a chain in somebody's file.
    while done.len() < edges.len() {
        let ready: Vec<(&str, u32)> = edges
            .iter()
            .filter(|(service, _)| !done.contains_key(*service))
            .filter_map(|(service, dependencies)| {
                let mut layer = 0;
                for edge in dependencies
                    .iter()
                    .filter(|edge| edges.contains_key(edge.on))
                {
                    layer = layer.max(done.get(edge.on)? + u32::from(!edge.side_by_side));
                }
                Some((*service, layer))
            })
            .collect();
        if ready.is_empty() {
            return Err(PlanError::DependencyCycle {
                cycle: cycle(edges, &done),
            });
        }
        done.extend(ready);
    }
    Ok(done)
}

/// One cycle among the services without a layer, first and last element the same. Every one of them
/// waits for another of them, so following the first such dependency must come round.
fn cycle(edges: &Edges<'_>, done: &BTreeMap<&str, u32>) -> Vec<String> {
    let mut path: Vec<&str> = Vec::new();
    let mut at = edges
        .keys()
        .copied()
        .find(|service| !done.contains_key(service));
    while let Some(service) = at {
        if let Some(start) = path.iter().position(|seen| *seen == service) {
            path.push(service);
            return path
                .split_off(start)
                .into_iter()
                .map(str::to_owned)
                .collect();
        }
        path.push(service);
        at = edges.get(service).and_then(|dependencies| {
            dependencies
                .iter()
                .map(|edge| edge.on)
                .find(|name| edges.contains_key(name) && !done.contains_key(name))
        });
    }
    path.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `~` begins the name of one that may be side by side.
    fn edge(on: &'static str) -> Edge<'static> {
        on.strip_prefix('~').map_or_else(
            || Edge::after(on),
            |on| Edge {
                on,
                side_by_side: true,
            },
        )
    }

    fn run(edges: &[(&'static str, &[&'static str])]) -> Result<Vec<(&'static str, u32)>, String> {
        let edges: Edges<'static> = edges
            .iter()
            .map(|(name, on)| (*name, on.iter().copied().map(edge).collect()))
            .collect();
        layers(&edges, |name| name == "elsewhere")
            .map(|found| found.into_iter().collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn each_waits_for_all_it_depends_on() {
        assert_eq!(run(&[]), Ok(vec![]));
        assert_eq!(
            run(&[
                ("web", &["api", "cache"]),
                ("api", &["db"]),
                ("db", &[]),
                ("cache", &[]),
                ("solo", &[])
            ]),
            Ok(vec![
                ("api", 1),
                ("cache", 0),
                ("db", 0),
                ("solo", 0),
                ("web", 2)
            ])
        );
        assert_eq!(run(&[("web", &["elsewhere"])]), Ok(vec![("web", 0)]));
    }

    #[test]
    fn what_only_has_to_begin_is_in_the_same_layer_or_an_earlier_one() {
        assert_eq!(
            run(&[
                ("web", &["~api", "~db"]),
                ("api", &["db"]),
                ("db", &[]),
                ("solo", &["~db"]),
            ]),
            Ok(vec![("api", 1), ("db", 0), ("solo", 0), ("web", 1)])
        );
        assert_eq!(
            run(&[("a", &["~b"]), ("b", &["~a"])]).unwrap_err(),
            "services wait for each other: a -> b -> a"
        );
    }

    #[test]
    fn a_cycle_is_shown_whole() {
        let error =
            run(&[("a", &["b"]), ("b", &["c", "d"]), ("c", &["b"]), ("d", &[])]).unwrap_err();
        assert_eq!(error, "services wait for each other: b -> c -> b");
        assert_eq!(
            run(&[("a", &["a"])]).unwrap_err(),
            "services wait for each other: a -> a"
        );
    }

    #[test]
    fn a_dependency_that_does_not_exist_is_an_error() {
        let error = run(&[("web", &["dv"]), ("db", &[])]).unwrap_err();
        assert_eq!(error, "service `web` depends on `dv`, which does not exist");
    }
}
