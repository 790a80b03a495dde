"""Every error mlq raises on purpose; the command line turns each into one line and exit code 2.

MlqError
  UsageError        an option, a name or a combination of options makes no sense
  ModelError        the ONNX file, or a node in it, is at fault
  DataError         the samples, the labels or the preprocessing are at fault
  PipelineError     a pass pipeline is misspelled
  ContractError     a module does not satisfy the contract of the stage it is in
  PlanError         ranges, sensitivities, plan or recipe do not fit the model
  TargetError       a target is declared, asked for or used wrongly
  CompileError      IREE refused a module
  DiagnosticError   the program is at fault, at a known place
"""

from __future__ import annotations

from typing import Any


class MlqError(Exception):
    """Base class; catch this to catch everything mlq reports on purpose."""


class UsageError(MlqError):
    """An option, a name or a combination of options makes no sense."""


class ModelError(MlqError):
    """The ONNX file, or a node in it, is at fault."""


class DataError(MlqError):
    """The samples, the labels or the preprocessing are at fault."""


class PipelineError(MlqError):
    """A pass pipeline names something unknown, or is badly spelled."""


class ContractError(MlqError):
    """A module does not satisfy the contract of the stage it is in."""


class PlanError(MlqError):
    """Ranges, sensitivities, a plan or a recipe do not fit the model."""


class TargetError(MlqError):
    """A target is declared, asked for or used wrongly."""


class CompileError(MlqError):
    """IREE refused a module; the message carries its first error line."""


class DiagnosticError(MlqError):
    """Something is wrong with the program itself, at a known place in it."""

    def __init__(self, op: Any, message: str) -> None:
        super().__init__(f"{op.location}: '{op.operation.name}': {message}")
