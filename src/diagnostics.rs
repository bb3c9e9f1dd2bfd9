//! What is wrong with scenarios, shown with the lines concerned.

use foresail_reports::Style;
use foresail_scenarios::format::LoadError;
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};

use crate::failure::Failure;

/// Everything that is wrong with the inputs of one command. An argument that
/// is wrong for each of several scenarios is told once.
#[derive(Debug)]
pub(crate) struct Diagnostics {
    handler: GraphicalReportHandler,
    rendered: Vec<Rendered>,
    /// The inputs that were begun, by name.
    inputs: Vec<String>,
}

/// A problem, and the inputs that have it.
#[derive(Debug)]
struct Rendered {
    text: String,
    inputs: Vec<String>,
}

/// So many inputs are named before a problem that they have; more are counted.
const INPUTS_NAMED_MAX: usize = 3;

impl Diagnostics {
    pub(crate) fn new(style: Style) -> Self {
        let theme = match style.colour {
            true => GraphicalTheme::unicode(),
            false => GraphicalTheme::unicode_nocolor(),
        };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(style.width)
            .with_links(false);
        Self {
            handler,
            rendered: Vec::new(),
            inputs: Vec::new(),
        }
    }

    /// What is added from now on is wrong with the input of this name, which is
    /// told unless all others have the same problem.
    pub(crate) fn begin(&mut self, input: &str) {
        self.inputs.push(input.to_owned());
    }

    /// All that is wrong with the only scenario of a command.
    pub(crate) fn failure(error: &LoadError, style: Style) -> Failure {
        let mut diagnostics = Self::new(style);
        diagnostics.add(error);
        diagnostics.into_failure()
    }

    /// Adds all problems of a scenario.
    pub(crate) fn add(&mut self, error: &LoadError) {
        for diagnostic in error.diagnostics() {
            let text = self.render(diagnostic);
            self.push(text);
        }
    }

    /// Adds a problem that has no lines to show.
    pub(crate) fn add_message(&mut self, message: &str) {
        self.push(format!("error: {message}\n"));
    }

    /// Fails if there is any problem.
    pub(crate) fn into_result(self) -> Result<(), Failure> {
        if self.rendered.is_empty() {
            Ok(())
        } else {
            Err(self.into_failure())
        }
    }

    /// The failure that all of them are.
    pub(crate) fn into_failure(self) -> Failure {
        let texts: Vec<_> = self.rendered.iter().map(|each| self.headed(each)).collect();
        let mut text = texts.join("\n");
        if self.rendered.len() > 1 {
            text += &format!("\n{} problems; nothing was run", self.rendered.len());
        }
        Failure::Diagnosed(text)
    }

    /// A problem under the inputs that have it, if others do not.
    fn headed(&self, Rendered { text, inputs }: &Rendered) -> String {
        if inputs.len() == self.inputs.len() {
            return text.clone();
        }
        let (named, others) = inputs.split_at(inputs.len().min(INPUTS_NAMED_MAX));
        let more = match others.len() {
            0 => String::new(),
            count => format!(" and {count} more"),
        };
        format!("in `{}`{more}:\n{text}", named.join("`, `"))
    }

    fn push(&mut self, text: String) {
        let input = self.inputs.last().cloned();
        match self.rendered.iter_mut().find(|other| other.text == text) {
            Some(same) if same.inputs.last() == input.as_ref() => {}
            Some(same) => same.inputs.extend(input),
            None => self.rendered.push(Rendered {
                text,
                inputs: input.into_iter().collect(),
            }),
        }
    }

    fn render(&self, diagnostic: &dyn Diagnostic) -> String {
        let mut text = String::new();
        match self.handler.render_report(&mut text, diagnostic) {
            Ok(()) => text,
            // Only if its source cannot be shown; the message itself always can.
            Err(_) => format!("error: {diagnostic}\n"),
        }
    }
}
