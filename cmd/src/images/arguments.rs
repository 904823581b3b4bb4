//! The arguments of `docker build` for a `build` section. Pure: the section and the variables in,
//! arguments out.

use std::collections::BTreeMap;
use std::path::Path;

use uc_compose::{Build, BuildContext, LocalSource};

use crate::compose::BuildJob;
use crate::error::{CliError, CliResult};

/// Options for builds.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct BuildFlags {
    /// Build argument, overrides the file; NAME alone takes its value from the environment
    /// (repeatable)
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// Pull newer base images
    #[arg(long)]
    pub(crate) build_pull: bool,
    /// Build without the cache
    #[arg(long)]
    pub(crate) no_cache: bool,
}

/// The arguments of one build, without those that name scratch files.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    pub(super) list: Vec<String>,
    /// Options that not every docker has, with the keys of the compose file that ask for them.
    pub(super) needed: Vec<(&'static str, &'static str)>,
    /// Variables that the build is to see: values of secrets.
    pub(super) environment: Vec<(String, String)>,
    pub(super) context: String,
}

impl Arguments {
    fn add(&mut self, option: &str, value: impl Into<String>) {
        self.list.extend([option.to_owned(), value.into()]);
    }

    /// An option that only BuildKit has.
    fn modern(&mut self, key: &'static str, option: &'static str, value: impl Into<String>) {
        self.needed.push((option, key));
        self.add(option, value);
    }
}

/// The arguments for a job. `images`: what the services are called that were built before it;
/// `variables`: those of the project.
pub(super) fn arguments(
    job: &BuildJob,
    flags: &BuildFlags,
    images: &BTreeMap<String, String>,
    variables: &BTreeMap<String, String>,
) -> CliResult<Arguments> {
    let build = &job.build;
    let mut out = Arguments {
        context: context(&build.context, images),
        ..Arguments::default()
    };
    out.add("-t", latest(job));
    for tag in build.image.iter().chain(&build.tags) {
        out.add("-t", tag);
    }
    if let (None, Some(dockerfile)) = (&build.dockerfile_inline, &build.dockerfile) {
        out.add("-f", dockerfile_path(build, dockerfile));
    }
    for (name, value) in build_args(build, flags, variables) {
        out.add(
            "--build-arg",
            value.map_or(name.clone(), |value| format!("{name}={value}")),
        );
    }
    if let Some(target) = &build.target {
        out.add("--target", target);
    }
    for (name, value) in &build.labels {
        out.add("--label", format!("{name}={value}"));
    }
    if let Some(network) = &build.network {
        out.add("--network", network);
    }
    for host in &build.extra_hosts {
        // `host:address` is what every docker understands.
        out.add("--add-host", host.replacen('=', ":", 1));
    }
    if let Some(bytes) = build.shm_size {
        out.add("--shm-size", bytes.to_string());
    }
    for (name, (soft, hard)) in &build.ulimits {
        out.add("--ulimit", format!("{name}={soft}:{hard}"));
    }
    for cache in &build.cache_from {
        out.add("--cache-from", cache);
    }
    if build.pull || flags.build_pull {
        out.list.push("--pull".to_owned());
    }
    if build.no_cache || flags.no_cache {
        out.list.push("--no-cache".to_owned());
    }
    platforms(build, &mut out);
    modern(job, images, variables, &mut out)?;
    Ok(out)
}

fn platforms(build: &Build, out: &mut Arguments) {
    if build.platforms.len() > 1 {
        out.needed.push(("--load", "platforms"));
        out.list.push("--load".to_owned());
    }
    if !build.platforms.is_empty() {
        out.add("--platform", build.platforms.join(","));
    }
}

/// What only BuildKit can do.
fn modern(
    job: &BuildJob,
    images: &BTreeMap<String, String>,
    variables: &BTreeMap<String, String>,
    out: &mut Arguments,
) -> CliResult {
    let build = &job.build;
    for (name, further) in &build.additional_contexts {
        out.modern(
            "additional_contexts",
            "--build-context",
            format!("{name}={}", context(further, images)),
        );
    }
    for cache in &build.cache_to {
        out.modern("cache_to", "--cache-to", cache);
    }
    if !build.no_cache_filter.is_empty() {
        out.modern(
            "no_cache_filter",
            "--no-cache-filter",
            build.no_cache_filter.join(","),
        );
    }
    for secret in &build.secrets {
        let id = &secret.id;
        match &secret.source {
            LocalSource::Variable(name) => {
                let Some(value) = variables.get(name) else {
                    return Err(CliError::usage(format!(
                        "{}/{} is built with the secret `{id}`, and its variable {name} is not set",
                        job.project, job.service
                    ))
                    .hint(format!(
                        "set it: `export {name}=…`, or a line `{name}=…` in `.env`"
                    )));
                };
                out.environment.push((name.clone(), value.clone()));
                out.modern(
                    "secrets",
                    "--secret",
                    format!("id={id},type=env,env={name}"),
                );
            }
            LocalSource::Path(path) | LocalSource::Bind(path) => {
                out.modern(
                    "secrets",
                    "--secret",
                    format!("id={id},type=file,src={}", path.display()),
                );
            }
            LocalSource::Content(_) | LocalSource::Command(_) => {
                return Err(CliError::usage(format!(
                    "{}/{} is built with the secret `{id}`, which comes from neither a file nor a variable",
                    job.project, job.service
                ))
                .hint("declare it with `file:` or `environment:`"));
            }
        }
    }
    for key in &build.ssh {
        out.modern("ssh", "--ssh", key);
    }
    for right in &build.entitlements {
        out.modern("entitlements", "--allow", right);
    }
    for (key, option, value) in [
        ("provenance", "--provenance", &build.provenance),
        ("sbom", "--sbom", &build.sbom),
    ] {
        // An option that is not used need not be supported.
        match value.as_deref() {
            Some("false") if key == "sbom" => {}
            Some(value) => {
                out.needed.push((option, key));
                out.list.push(format!("{option}={value}"));
            }
            None => {}
        }
    }
    Ok(())
}

/// The arguments of the file, then those of the command line; a name without value takes that of
/// the project's variables.
fn build_args(
    build: &Build,
    flags: &BuildFlags,
    variables: &BTreeMap<String, String>,
) -> BTreeMap<String, Option<String>> {
    let mut arguments = build.args.clone();
    for argument in &flags.build_arg {
        match argument.split_once('=') {
            Some((name, value)) => arguments.insert(name.to_owned(), Some(value.to_owned())),
            None => arguments.insert(argument.clone(), variables.get(argument).cloned()),
        };
    }
    arguments
}

/// docker takes `-f` relative to the working directory, a compose file means the context.
fn dockerfile_path(build: &Build, dockerfile: &Path) -> String {
    match &build.context {
        BuildContext::Directory(directory) => directory.join(dockerfile).display().to_string(),
        BuildContext::Remote(_) | BuildContext::Service(_) => dockerfile.display().to_string(),
    }
}

/// A context in docker's words.
fn context(context: &BuildContext, images: &BTreeMap<String, String>) -> String {
    match context {
        BuildContext::Directory(directory) => directory.display().to_string(),
        BuildContext::Remote(url) => url.clone(),
        BuildContext::Service(service) => {
            format!(
                "docker-image://{}",
                images.get(service).map_or(service.as_str(), String::as_str)
            )
        }
    }
}

/// The name of a service's images, without tag.
pub(super) fn repository(job: &BuildJob) -> String {
    // A repository name is in lower case and cannot begin or end with a separator.
    format!("{}-{}", job.project, job.service).to_ascii_lowercase()
}

/// The tag of the last build of a service.
pub(super) fn latest(job: &BuildJob) -> String {
    format!("{}:latest", repository(job))
}

/// The first option that this docker's `build --help` does not know, with the key that asks for it.
pub(super) fn unsupported<'a>(
    needed: &'a [(&'static str, &'static str)],
    help: &str,
) -> Option<&'a (&'static str, &'static str)> {
    let known = |option: &str| {
        help.split_whitespace()
            .any(|word| word.trim_end_matches(',') == option)
    };
    needed.iter().find(|(option, _)| !known(option))
}

#[cfg(test)]
mod tests {
    use uc_compose::BuildSecret;

    use super::*;

    fn job(build: Build) -> BuildJob {
        BuildJob {
            project: "shop".into(),
            service: "web".into(),
            build,
        }
    }

    fn build() -> Build {
        Build::of(BuildContext::Directory("/srv/shop".into()))
    }

    fn of(build: Build, flags: &BuildFlags) -> Arguments {
        let images = BTreeMap::from([("base".to_owned(), "shop-base:0123456789ab".to_owned())]);
        let variables = BTreeMap::from([
            ("TOKEN".to_owned(), "t0p".to_owned()),
            ("V".to_owned(), "5".to_owned()),
        ]);
        arguments(&job(build), flags, &images, &variables).unwrap()
    }

    fn line(build: Build) -> String {
        of(build, &BuildFlags::default()).list.join(" ")
    }

    #[test]
    fn a_plain_build_asks_for_nothing_special() {
        let plain = of(build(), &BuildFlags::default());
        assert_eq!(plain.list, ["-t", "shop-web:latest"]);
        assert_eq!(
            (plain.context.as_str(), plain.needed.len()),
            ("/srv/shop", 0)
        );
    }

    #[test]
    fn every_key_has_its_option() {
        let whole = Build {
            dockerfile: Some("docker/D".into()),
            args: [
                ("A".to_owned(), Some("1".to_owned())),
                ("B".to_owned(), None),
            ]
            .into(),
            target: Some("st".into()),
            image: Some("web:2".into()),
            cache_from: vec!["c".into()],
            cache_to: vec!["type=inline".into()],
            no_cache: true,
            no_cache_filter: vec!["x".into(), "y".into()],
            pull: true,
            labels: [("l".to_owned(), "v w".to_owned())].into(),
            tags: vec!["t:1".into()],
            platforms: vec!["linux/amd64".into()],
            network: Some("host".into()),
            extra_hosts: vec!["a=::1".into()],
            shm_size: Some(1024),
            ulimits: [("nofile".to_owned(), (1, 2))].into(),
            secrets: vec![
                BuildSecret {
                    id: "t".into(),
                    source: LocalSource::Variable("TOKEN".into()),
                },
                BuildSecret {
                    id: "f".into(),
                    source: LocalSource::Path("/f".into()),
                },
            ],
            ssh: vec!["default".into()],
            entitlements: vec!["network.host".into()],
            provenance: Some("mode=max".into()),
            sbom: Some("true".into()),
            additional_contexts: [
                ("base".to_owned(), BuildContext::Service("base".into())),
                ("dir".to_owned(), BuildContext::Directory("/d".into())),
                (
                    "img".to_owned(),
                    BuildContext::Remote("docker-image://x".into()),
                ),
            ]
            .into(),
            ..build()
        };
        let arguments = of(whole, &BuildFlags::default());
        insta::assert_snapshot!(arguments.list.join("\n"));
        assert_eq!(
            arguments.environment,
            [("TOKEN".to_owned(), "t0p".to_owned())]
        );
    }

    #[test]
    fn the_dockerfile_is_where_compose_looks() {
        let with = |dockerfile: &str| {
            line(Build {
                dockerfile: Some(dockerfile.into()),
                ..build()
            })
        };
        assert!(
            with("../D").ends_with("-f /srv/shop/../D"),
            "{}",
            with("../D")
        );
        assert!(with("/abs/D").ends_with("-f /abs/D"));
        let remote = Build {
            dockerfile: Some("d/D".into()),
            ..Build::of(BuildContext::Remote("https://x.org/y.git#main".into()))
        };
        assert!(line(remote).ends_with("-f d/D"));
        let inline = Build {
            dockerfile_inline: Some("FROM x".into()),
            dockerfile: None,
            ..build()
        };
        assert_eq!(line(inline), "-t shop-web:latest");
    }

    #[test]
    fn flags_are_added_and_win() {
        let flags = BuildFlags {
            build_arg: vec!["A=2".into(), "V".into(), "NOWHERE".into()],
            build_pull: true,
            no_cache: true,
        };
        let own = Build {
            args: [("A".to_owned(), Some("1".to_owned()))].into(),
            no_cache: true,
            ..build()
        };
        assert_eq!(
            of(own, &flags).list.join(" "),
            "-t shop-web:latest --build-arg A=2 --build-arg NOWHERE --build-arg V=5 --pull --no-cache"
        );
    }

    #[test]
    fn several_platforms_need_a_builder_that_can() {
        let both = Build {
            platforms: vec!["linux/amd64".into(), "linux/arm64".into()],
            ..build()
        };
        let arguments = of(both, &BuildFlags::default());
        assert_eq!(arguments.needed, [("--load", "platforms")]);
        assert!(
            arguments
                .list
                .join(" ")
                .ends_with("--load --platform linux/amd64,linux/arm64")
        );
    }

    #[test]
    fn a_secret_without_its_variable_is_an_error() {
        let secret = BuildSecret {
            id: "t".into(),
            source: LocalSource::Variable("GONE".into()),
        };
        let job = job(Build {
            secrets: vec![secret],
            ..build()
        });
        let error = arguments(
            &job,
            &BuildFlags::default(),
            &BTreeMap::new(),
            &BTreeMap::new(),
        )
        .unwrap_err();
        assert!(
            error.message.contains("variable GONE is not set"),
            "{}",
            error.message
        );
    }

    #[test]
    fn what_a_docker_cannot_do_is_found_in_its_help() {
        let help = "  --build-arg list   x\n  -t, --tag list\n      --secret, -s x\n";
        assert_eq!(unsupported(&[("--secret", "secrets")], help), None);
        assert_eq!(
            unsupported(&[("--secret", "secrets"), ("--ssh", "ssh")], help),
            Some(&("--ssh", "ssh"))
        );
        assert_eq!(
            unsupported(&[("--build", "x")], help),
            Some(&("--build", "x"))
        );
    }
}
