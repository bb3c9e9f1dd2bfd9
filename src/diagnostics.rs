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
    rendered: Vec<String>,
}

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
        }
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

    fn into_failure(self) -> Failure {
        let mut text = self.rendered.join("\n");
        if self.rendered.len() > 1 {
            text += &format!("\n{} problems; nothing was run", self.rendered.len());
        }
        Failure::Diagnosed(text)
    }

    fn push(&mut self, text: String) {
        if !self.rendered.contains(&text) {
            self.rendered.push(text);
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
