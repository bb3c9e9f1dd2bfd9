//! What is wrong with a scenario, where, and what to do about it.

use std::cell::RefCell;
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

/// A text that settings come from: the file, or an argument of the command line.
#[derive(Clone, Debug)]
struct Source {
    name: String,
    text: Arc<str>,
    /// What relative paths in the text are relative to.
    base_dir: PathBuf,
}

/// A stretch of bytes of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) source: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Place {
    /// A part of this place, by offsets into it.
    pub(super) fn part(self, start: usize, end: usize) -> Self {
        Self {
            source: self.source,
            start: self.start + start,
            end: self.start + end,
        }
    }
}

/// Something wrong: a code to look up, a message, the places involved, and a remedy.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    code: &'static str,
    message: String,
    labels: Vec<(Place, String)>,
    help: Option<String>,
}

impl Problem {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            labels: Vec::new(),
            help: None,
        }
    }

    pub(super) fn at(mut self, place: Place, label: impl Into<String>) -> Self {
        self.labels.push((place, label.into()));
        self
    }

    /// A label on a setting's value; none if the value is a default, which has no place.
    pub(super) fn at_if_written(mut self, place: Option<Place>, label: impl Into<String>) -> Self {
        self.labels.extend(place.map(|place| (place, label.into())));
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// The texts being read and the problems found in them so far.
#[derive(Debug, Default)]
pub(super) struct Context {
    sources: Vec<Source>,
    problems: RefCell<Vec<Problem>>,
}

impl Context {
    pub(super) fn add_source(&mut self, name: &str, text: &str, base_dir: &Path) -> usize {
        let source = Source {
            name: name.to_owned(),
            text: text.into(),
            base_dir: base_dir.to_owned(),
        };
        self.sources.push(source);
        self.sources.len() - 1
    }

    /// The file that a path written at `place` names.
    pub(super) fn resolve(&self, place: Place, path: &str) -> PathBuf {
        self.sources[place.source].base_dir.join(path)
    }

    pub(super) fn report(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    pub(super) fn has_problems(&self) -> bool {
        !self.problems.borrow().is_empty()
    }

    /// The problems for people to read: those of the file first, in order of place.
    pub(super) fn diagnoses(&self) -> Vec<Diagnosis> {
        let mut problems = self.problems.borrow().clone();
        problems.sort_by_key(|p| {
            p.labels
                .first()
                .map(|(place, _)| (place.source, place.start))
        });
        problems
            .into_iter()
            .map(|problem| self.diagnosis(problem))
            .collect()
    }

    fn diagnosis(&self, problem: Problem) -> Diagnosis {
        let mut pages: Vec<Page> = Vec::new();
        for (place, label) in problem.labels {
            let span = LabeledSpan::new_with_span(Some(label), place.start..place.end);
            match pages.iter_mut().find(|page| page.source == place.source) {
                Some(page) => page.labels.push(span),
                None => {
                    let source = &self.sources[place.source];
                    let text = NamedSource::new(&source.name, Arc::clone(&source.text));
                    pages.push(Page {
                        source: place.source,
                        text,
                        labels: vec![span],
                    });
                }
            }
        }
        let mut pages = pages.into_iter();
        Diagnosis {
            code: problem.code,
            message: problem.message,
            help: problem.help,
            page: pages.next(),
            related: pages.map(|page| Elsewhere { page }).collect(),
        }
    }
}

/// A source with the labels on it.
#[derive(Debug)]
struct Page {
    source: usize,
    text: NamedSource<Arc<str>>,
    labels: Vec<LabeledSpan>,
}

/// One thing that is wrong with a scenario, as a [`miette::Diagnostic`].
#[derive(Debug)]
pub struct Diagnosis {
    code: &'static str,
    message: String,
    help: Option<String>,
    page: Option<Page>,
    /// The places in other texts, such as an argument that contradicts the file.
    related: Vec<Elsewhere>,
}

impl Diagnosis {
    /// A diagnosis of a file as a whole, which has no place to point at.
    pub(super) fn of_file(message: String, help: String) -> Box<Self> {
        Box::new(Self {
            code: "scenario::file",
            message,
            help: Some(help),
            page: None,
            related: Vec::new(),
        })
    }
}

impl Display for Diagnosis {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for Diagnosis {}

impl Diagnostic for Diagnosis {
    fn code(&self) -> Option<Box<dyn Display + '_>> {
        Some(Box::new(self.code))
    }

    fn help(&self) -> Option<Box<dyn Display + '_>> {
        self.help
            .as_ref()
            .map(|help| Box::new(help) as Box<dyn Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.page.as_ref().map(|page| &page.text as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.page
            .as_ref()
            .map(|page| Box::new(page.labels.iter().cloned()) as Box<_>)
    }

    fn related(&self) -> Option<Box<dyn Iterator<Item = &dyn Diagnostic> + '_>> {
        if self.related.is_empty() {
            return None;
        }
        Some(Box::new(
            self.related
                .iter()
                .map(|elsewhere| elsewhere as &dyn Diagnostic),
        ))
    }
}

/// The places of a problem that lie in a second text: miette shows one text a diagnostic.
#[derive(Debug)]
struct Elsewhere {
    page: Page,
}

impl Display for Elsewhere {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the other value involved is here")
    }
}

impl std::error::Error for Elsewhere {}

impl Diagnostic for Elsewhere {
    fn severity(&self) -> Option<miette::Severity> {
        Some(miette::Severity::Advice)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.page.text)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.page.labels.iter().cloned()))
    }
}
