//! The terminal's other screen, without a cursor, until it is dropped; what was last on it stays.
//!
//! Never decides what is on it.

use std::cell::RefCell;

use console::truncate_str;
use ringmaster_engine::print::Printer;

use super::view::View;

/// An open screen.
pub(crate) struct Screen<'a> {
    printer: &'a Printer,
    introduction: &'a str,
    last: RefCell<Vec<String>>,
}

impl<'a> Screen<'a> {
    pub(crate) fn open(printer: &'a Printer, introduction: &'a str) -> Self {
        printer.text("\x1b[?1049h\x1b[?25l".to_owned());
        Self { printer, introduction, last: RefCell::default() }
    }

    /// Draws as much as there is room for: what changes is more than what doesn't.
    pub(crate) fn draw(&self, view: &View, rows: usize, columns: usize) {
        let room = rows.saturating_sub(1);
        let lines = view.lines(columns, room);
        let introduction = self.introduction.lines().map(str::to_owned).chain([String::new()]);
        let all: Vec<String> = introduction.chain(lines.iter().cloned()).collect();
        let shown = if all.len() <= room { &all } else { &lines };
        let mut frame = "\x1b[H".to_owned();
        for line in shown.iter().take(room) {
            frame.push_str(&truncate_str(line, columns.saturating_sub(1), "…"));
            frame.push_str("\x1b[K\r\n");
        }
        frame.push_str("\x1b[J");
        self.printer.text(frame);
        *self.last.borrow_mut() = lines;
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        self.printer.text("\x1b[?25h\x1b[?1049l".to_owned());
        // What could be tried is over.
        self.printer.line(&self.last.borrow().join("\n"));
    }
}
