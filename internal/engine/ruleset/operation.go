package ruleset

import "github.com/VirusTotal/gyp/ast"

func (e *evaluation) operation(x *ast.Operation, depth int) value {
	switch x.Operator {
	case ast.OpAnd, ast.OpOr:
		return e.logic(x, depth)
	}
	if len(x.Operands) == 0 {
		return value{}
	}
	left := e.of(x.Operands[0], depth).strict()
	for i, operand := range x.Operands[1:] {
		right := e.of(operand, depth).strict()
		v := combine(x.Operator, left, right)
		if v.kind == unknown && i == 0 && len(x.Operands) == 2 && x.Operator == ast.OpEqual {
			v = e.readEquals(x.Operands[0], right, depth)
			if v.kind == unknown {
				v = e.readEquals(operand, left, depth)
			}
		}
		left = v
	}
	return left
}

func (e *evaluation) logic(x *ast.Operation, depth int) value {
	all, none, result := true, true, value{}
	for _, operand := range x.Operands {
		v := e.of(operand, depth)
		if x.Operator == ast.OpAnd && v.no() {
			// exec.c yields 0 for an undefined operand, but short-circuit
			// evaluation may leave undefined: do not tell them apart.
			return value{kind: never}
		}
		if x.Operator == ast.OpOr && v.yes() {
			return v
		}
		all, none = all && v.yes(), none && v.no()
	}
	switch {
	case x.Operator == ast.OpAnd && all:
		result = boolean(true)
	case x.Operator == ast.OpOr && none:
		result = value{kind: never}
	}
	return result
}

// readEquals decides "uintN(OFFSET) == CONST" where the bytes are not all
// known but the constant contradicts what is.
func (e *evaluation) readEquals(x ast.Expression, constant value, depth int) value {
	for {
		g, ok := x.(*ast.Group)
		if !ok {
			break
		}
		x = g.Expression
	}
	call, ok := x.(*ast.FunctionCall)
	if !ok || constant.kind != known || len(call.Arguments) != 1 {
		return value{}
	}
	name, ok := call.Callable.(*ast.Identifier)
	if !ok {
		return value{}
	}
	r, ok := readerOf(name.Identifier)
	at := e.of(call.Arguments[0], depth)
	if !ok || at.kind != known {
		return value{}
	}
	want, ok := r.bytes(constant.n)
	if !ok {
		return value{kind: never}
	}
	if can, _ := e.class.begins(at.n, want, nil); !can {
		return value{kind: never}
	}
	return value{}
}

// combine applies a binary operator to integers. Operators on text and floats
// are only decided for undefined operands.
func combine(op ast.OperatorType, a, b value) value {
	if a.kind == undefined || b.kind == undefined {
		return value{kind: undefined}
	}
	if a.kind != known || b.kind != known {
		return value{}
	}
	switch op {
	case ast.OpEqual:
		return boolean(a.n == b.n)
	case ast.OpNotEqual:
		return boolean(a.n != b.n)
	case ast.OpLessThan:
		return boolean(a.n < b.n)
	case ast.OpLessOrEqual:
		return boolean(a.n <= b.n)
	case ast.OpGreaterThan:
		return boolean(a.n > b.n)
	case ast.OpGreaterOrEqual:
		return boolean(a.n >= b.n)
	case ast.OpBitAnd:
		return value{known, a.n & b.n}
	case ast.OpBitOr:
		return value{known, a.n | b.n}
	case ast.OpBitXor:
		return value{known, a.n ^ b.n}
	case ast.OpAdd:
		return value{known, a.n + b.n}
	case ast.OpSub:
		return value{known, a.n - b.n}
	}
	return value{}
}
