//! Collects diagnostics during a load, with the current path in the document.

use std::fmt::Write as _;
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;

use crate::diagnostic::{Diagnostic, Rule, Severity};
use crate::node::{Span, count};

/// Diagnostics that are kept; the rest are counted. Bounds memory for hostile input.
const MOST_DIAGNOSTICS: usize = 200;

/// Sink for the diagnostics of a load.
#[derive(Debug, Default)]
pub(crate) struct Report {
    files: Vec<PathBuf>,
    strict: bool,
    /// Nothing will be deployed, so what a deployment would refuse is a warning.
    reading: bool,
    found: Vec<(Span, Diagnostic)>,
    left_out: usize,
    left_out_errors: bool,
    path: Vec<String>,
    /// Where the path of the current file begins in `path`.
    top: usize,
    /// Paths of keys that the table says have no effect.
    no_effect: Vec<String>,
}

impl Report {
    pub(crate) fn new(strict: bool) -> Self {
        Self {
            strict,
            ..Self::default()
        }
    }

    /// Makes errors of [`Rule::Refused`] warnings if `reading`.
    pub(crate) fn reading(self, reading: bool) -> Self {
        Self { reading, ..self }
    }

    /// The file of a span. Empty for [`Span::NOWHERE`].
    fn file_of(&self, span: Span) -> PathBuf {
        if span.file == Span::NOWHERE.file {
            return PathBuf::new();
        }
        let file = self.files.get(span.file as usize);
        file.expect("spans have the index of a file that was added")
            .clone()
    }

    /// File, line and column of a span; line and column are 0 if it is in no line.
    pub(crate) fn position(&self, span: Span) -> (PathBuf, usize, usize) {
        (self.file_of(span), span.line as usize, span.column as usize)
    }

    /// A file that spans may point to; returns its index.
    pub(crate) fn add_file(&mut self, path: PathBuf) -> u32 {
        self.files.push(path);
        count(self.files.len() - 1)
    }

    /// The current path, with dots.
    pub(crate) fn path(&self) -> String {
        let mut out = String::new();
        for step in self.path.iter().skip(self.top) {
            if out.is_empty() || step.starts_with('[') {
                out.push_str(step);
            } else {
                let _ = write!(out, ".{step}");
            }
        }
        out
    }

    /// An error at `span`, and the next step.
    pub(crate) fn error(
        &mut self,
        rule: Rule,
        span: Span,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(
            Severity::Error,
            rule,
            span,
            message.into(),
            None,
            hint.into(),
        );
    }

    /// A value of the wrong type or outside what is allowed: [`Rule::Value`].
    pub(crate) fn invalid(
        &mut self,
        span: Span,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.error(Rule::Value, span, message, hint);
    }

    /// What Docker Compose reads and a machine cannot run: [`Rule::Refused`].
    pub(crate) fn refuse(
        &mut self,
        span: Span,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.error(Rule::Refused, span, message, hint);
    }

    /// An error with a text under the snippet.
    pub(crate) fn labelled(
        &mut self,
        rule: Rule,
        span: Span,
        message: impl Into<String>,
        label: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let label = Some(label.into());
        self.add(
            Severity::Error,
            rule,
            span,
            message.into(),
            label,
            hint.into(),
        );
    }

    /// A warning.
    pub(crate) fn warning(
        &mut self,
        rule: Rule,
        span: Span,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(
            Severity::Warning,
            rule,
            span,
            message.into(),
            None,
            hint.into(),
        );
    }

    /// A key or value that is not honoured: a warning, or an error with `strict`.
    pub(crate) fn not_honoured(
        &mut self,
        span: Span,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let severity = if self.strict {
            Severity::Error
        } else {
            Severity::Warning
        };
        self.add(
            severity,
            Rule::NotHonoured,
            span,
            message.into(),
            None,
            hint.into(),
        );
    }

    /// A file that cannot be read. `missing` is the next step if it does not exist.
    pub(crate) fn cannot_read(
        &mut self,
        span: Span,
        file: &str,
        problem: &io::Error,
        missing: &str,
    ) {
        let hint = match problem.kind() {
            io::ErrorKind::NotFound => missing,
            io::ErrorKind::InvalidData => "save it as UTF-8 text",
            _ => "correct the path, or make the file readable",
        };
        self.error(
            Rule::File,
            span,
            format!("cannot read `{file}`: {problem}"),
            hint,
        );
    }

    /// Notes that the key at the current path has no effect.
    pub(crate) fn no_effect(&mut self) {
        if self.no_effect.len() < MOST_DIAGNOSTICS {
            self.no_effect.push(self.path());
        }
    }

    /// The paths given to [`Self::no_effect`], at most 200.
    pub(crate) fn take_no_effect(&mut self) -> Vec<String> {
        std::mem::take(&mut self.no_effect)
    }

    fn add(
        &mut self,
        severity: Severity,
        rule: Rule,
        span: Span,
        message: String,
        label: Option<String>,
        hint: String,
    ) {
        let severity = if self.reading && rule == Rule::Refused {
            Severity::Warning
        } else {
            severity
        };
        // Each use of an alias reports the same place; keep one.
        let is_known = self
            .found
            .iter()
            .any(|(at, d)| *at == span && d.message == message && d.severity == severity);
        if is_known {
            return;
        }
        if self.found.len() >= MOST_DIAGNOSTICS {
            self.left_out += 1;
            self.left_out_errors |= severity == Severity::Error;
            return;
        }
        let diagnostic = Diagnostic {
            severity,
            message,
            label,
            hint: Some(hint),
            ..self.blank(rule, span)
        };
        self.found.push((span, diagnostic));
    }

    /// An error without a message, for problems that only show after the load.
    pub(crate) fn blank(&self, rule: Rule, span: Span) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            rule,
            file: self.file_of(span),
            line: span.line as usize,
            column: span.column as usize,
            length: span.length.max(1) as usize,
            path: self.path(),
            message: String::new(),
            label: None,
            hint: None,
        }
    }

    /// Whether a key that is missing at the current path may only seem so: it is misspelt, or the
    /// value at one of these keys could not be read.
    pub(crate) fn may_hold(&self, keys: &[&str]) -> bool {
        let path = self.path();
        self.found
            .iter()
            .filter(|(_, d)| d.severity == Severity::Error)
            .any(|(_, d)| match d.path.strip_prefix(&path) {
                Some("") => d.rule == Rule::UnknownKey,
                Some(below) => keys
                    .iter()
                    .any(|key| below.strip_prefix('.').is_some_and(|b| b.starts_with(key))),
                None => false,
            })
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    /// The number of errors; those that were only counted are one.
    pub(crate) fn errors(&self) -> usize {
        let errors = self
            .found
            .iter()
            .filter(|(_, d)| d.severity == Severity::Error)
            .count();
        errors + usize::from(self.left_out_errors)
    }

    /// All diagnostics, in order of file and place.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.found
            .sort_by_key(|(span, _)| (span.file, span.line, span.column));
        let more = self
            .found
            .last()
            .filter(|_| self.left_out > 0)
            .map(|(last, _)| {
                let severity = if self.left_out_errors {
                    Severity::Error
                } else {
                    Severity::Warning
                };
                Diagnostic {
                    severity,
                    path: String::new(),
                    message: format!("{} more problems", self.left_out),
                    hint: Some("fix the problems above first".into()),
                    ..self.blank(Rule::File, Span::of_file(last.file))
                }
            });
        let found = self.found.into_iter().map(|(_, diagnostic)| diagnostic);
        found.chain(more).collect()
    }
}

/// Something that leads to the report of a load, and so has a place in the document.
pub(crate) trait Place: Sized {
    fn report(&mut self) -> &mut Report;

    /// One step deeper in the document, until the result is dropped.
    fn at(&mut self, step: &str) -> At<'_, Self> {
        let mut at = self.here();
        at.report().path.push(step.to_owned());
        at
    }

    /// An item of a list, until the result is dropped.
    fn at_item(&mut self, index: usize) -> At<'_, Self> {
        self.at(&format!("[{index}]"))
    }

    /// The top of another file, until the result is dropped.
    fn at_top(&mut self) -> At<'_, Self> {
        let mut at = self.here();
        at.report().top = at.length;
        at
    }

    /// The same place.
    fn here(&mut self) -> At<'_, Self> {
        let report = self.report();
        At {
            length: report.path.len(),
            top: report.top,
            inner: self,
        }
    }
}

impl Place for Report {
    fn report(&mut self) -> &mut Report {
        self
    }
}

/// A [`Place`] whose path becomes the earlier one again when this is dropped.
#[derive(Debug)]
pub(crate) struct At<'a, P: Place> {
    inner: &'a mut P,
    /// Steps of the earlier path.
    length: usize,
    /// Where the earlier path began.
    top: usize,
}

impl<P: Place> Deref for At<'_, P> {
    type Target = P;

    fn deref(&self) -> &P {
        self.inner
    }
}

impl<P: Place> DerefMut for At<'_, P> {
    fn deref_mut(&mut self) -> &mut P {
        self.inner
    }
}

impl<P: Place> Drop for At<'_, P> {
    fn drop(&mut self) {
        let report = self.inner.report();
        report.path.truncate(self.length);
        report.top = self.top;
    }
}
