"""How Numba links and optimises the routines of this package: each entry point whole, once.

An *entry point* is what Python calls (a batch driver); a *part* is a routine that only compiled
code calls. Numba's own way is to optimise every part and emit machine code for it, then to link
the optimised parts into the entry point, optimise them there again, and leave them visible as
weak symbols. Two things follow.

*Bits.* Where a part is called and not inlined, the linker takes whichever copy of its symbol the
process has loaded first. In a process that compiles, that is the part on its own; in a process that
loads the entry point from the disk cache, it is the copy inside, which was optimised once more.
Both are correct, but sums may be reassociated, so the first run of a program and the second would
differ in their last bits.

*Time.* Most of the machine code is never run, and every part is optimised once for each level above
it.

Here a part is lowered and no more, and an entry point, once all its parts are linked in, makes
them private to itself and is optimised as one piece. What runs is then decided by the source and
the processor alone, and nothing is optimised twice.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding as llvm
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import LoweringPass, register_pass
from numba.core.typed_passes import AnnotateTypes


class EntryLibrary(JITCodeLibrary):
    """Code of an entry point; what is linked into it becomes its own."""

    def _optimize_final_module(self) -> None:
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == llvm.Linkage.linkonce_odr:
                function.linkage = llvm.Linkage.internal
        super()._optimize_final_module()


class PartLibrary(JITCodeLibrary):
    """Code of a part: kept as LLVM's intermediate form, for linking and for the disk cache."""

    def _optimize_final_module(self) -> None:
        """Leave it to the entry point (each function has had its local passes by now)."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._define_environments()
        self._finalized = True

    def _define_environments(self) -> None:
        # Numba writes the address of a function's environment (its globals, needed to raise errors)
        # into a global variable, which it looks for in machine code: supply that variable alone.
        engine: Any = self._codegen._engine
        missing = [
            str(variable)
            for variable in self._final_module.global_variables
            if variable.name.startswith("_ZN08NumbaEnv")
            and not engine.is_symbol_defined(variable.name)
        ]
        if missing:
            self._codegen._add_module(llvm.parse_assembly("\n".join(missing)))
            engine.finalize_object()

    def get_pointer_to_function(self, name: str) -> int:
        """Return 0, which stands for "no such machine code"."""
        self._ensure_finalized()
        return 0

    def serialize_using_object_code(self) -> Any:
        """Return the intermediate form: there is no object code."""
        return self.serialize_using_bitcode()


@register_pass(mutates_CFG=False, analysis_only=False)
class _ChooseLibrary(LoweringPass):
    """Start the library that lowering writes into; it would make a plain one if there were none."""

    _name = "hsref_choose_library"

    def __init__(self) -> None:
        LoweringPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        kind = PartLibrary if state.flags.no_cpython_wrapper else EntryLibrary
        library = kind(state.targetctx.codegen(), state.func_id.func_qualname)
        library.enable_object_caching()
        state.library = library
        return False


class WholeProgramCompiler(CompilerBase):
    """Numba's nopython pipeline, writing into the libraries above.

    A function compiled without a wrapper for Python is a part, any other an entry point.
    """

    def define_pipelines(self) -> list[Any]:
        """Return the one pipeline."""
        pipeline = DefaultPassBuilder.define_nopython_pipeline(self.state)
        # Annotation is the last pass before lowering.
        pipeline.add_pass_after(_ChooseLibrary, AnnotateTypes)
        pipeline.finalize()
        return [pipeline]
